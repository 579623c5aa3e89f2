"""Grids of images: originals above their reconstructions, the same images in every row.

They are those that `reconstruct.ipynb` left in the run folders, as PNG files.
"""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tok1d.evaluation.card import card_id, protocol, same_card
from tok1d.figures.series import counts_of, series_of, shared_count
from tok1d.figures.style import HALO, PAGE, STYLE, Drawn, show
from tok1d.runs import Lacking, Run, RunError
from tok1d.system.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

ORIGINAL = "original"
WIDTH = 13  # letters of a row's label


def reconstructions(run: Run) -> tuple[Figure, Drawn]:
    """The images that `reconstruct.ipynb` left in the run folder, a row for each token count."""
    drawn = [row_of(run, tokens(count), count) for count in shown_counts(run)]
    return draw_rows(drawn), drawn


def encoders(runs: list[Run], num_tokens: int = 0) -> Drawn:
    """A row for each series of runs, at one token count: `num_tokens`, 0 for what most of them have.

    Empty with a single series. Raises `RunError` if runs show different images or were not measured alike.
    """
    series = series_of(runs)
    if len(series) < 2:
        return []
    count = shared_count(series, num_tokens)
    having = [(s.label, [run for run in s.runs if count in counts_of([run])]) for s in series]
    chosen = [(label, members[0]) for label, members in having if members]
    return same_images([row_of(run, label, count) for label, run in chosen], [run for _, run in chosen])


def token_counts(runs: list[Run]) -> Drawn:
    """A row for each token count of the series that has most of them; empty if that is one. Raises as
    `encoders`.
    """
    members = max(series_of(runs), key=lambda each: len(counts_of(each.runs))).runs
    first = {count: run for run in reversed(members) for count in counts_of([run])}
    if len(first) < 2:
        return []
    drawn = [row_of(first[count], tokens(count), count) for count in sorted(first)]
    if any(len(counts_of([run])) > 1 for run in members):  # an elastic run shows what it was asked to
        shown = {run: shown_counts(run) for run in set(first.values())}
        drawn = [row for row in drawn if row["num_tokens"] in shown[first[row["num_tokens"]]]]
    return same_images(drawn, [first[row["num_tokens"]] for row in drawn])


def row_of(run: Run, label: str, count: int) -> dict[str, Any]:
    evaluation = run.evaluation
    row: dict[str, Any] = next((row for row in evaluation["results"] if row["num_tokens"] == count), {})
    where = {"series": label, "run": str(run.path), "card": card_id(protocol(evaluation["card"], "psnr"))}
    return where | {"num_tokens": count} | ({"psnr": row["psnr"]} if "psnr" in row else {})


def same_images(drawn: Drawn, runs: list[Run]) -> Drawn:
    """`drawn`, if all of these runs show the same images and were measured alike. Raises `RunError`."""
    if not drawn:
        return []
    same_card(runs, "psnr")
    first = originals_of(runs[0])
    for run in runs[1:]:
        if not np.array_equal(first, originals_of(run)):
            raise RunError(
                f"{run.path} shows other images than {runs[0].path}: type 'tok1d run "
                f"notebooks/reconstruct.ipynb -p run=NAME -p show_images={len(first)}' for both"
            )
    return drawn


def draw_rows(drawn: Drawn) -> Figure:
    """Originals, then a row for each item, with its PSNR over all evaluated images."""
    rows = {}
    for row in drawn:
        label = row["series"]
        if "psnr" in row:
            label = f"{textwrap.fill(label, WIDTH)}\n{row['psnr']:.1f} dB"
        rows[label] = read_row(Run(row["run"]), f"{row['num_tokens']}_tokens")
    return reconstruction_grid(originals_of(Run(drawn[0]["run"])), rows)


def reconstruction_grid(originals: Tensor | np.ndarray, rows: dict[str, np.ndarray]) -> Figure:
    """Originals above one row of reconstructions per label, the same images in every row: uint8 [M, H, W, 3]
    each.
    """
    return picture_rows({ORIGINAL: np.asarray(originals)} | rows)


def picture_rows(pictures: dict[str, np.ndarray]) -> Figure:
    """A row of images beside each label, uint8 [M, H, W, 3] each."""
    label, gap = 0.95, 0.03  # inches
    longest = max(map(len, pictures.values()))
    tile = min(0.86, (PAGE - label) / longest)
    width, height = label + tile * longest, tile * len(pictures)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        for r, (name, images) in enumerate(pictures.items()):
            top = 1 - (r + 1) * tile / height
            middle = top + tile / height / 2
            figure.text(
                (label - 0.08) / width, middle, name, ha="right", va="center", linespacing=1.3,
                path_effects=HALO,
            )  # fmt: skip
            for m, image in enumerate(images):
                left = (label + m * tile) / width
                axis = figure.add_axes((left, top, (tile - gap) / width, (tile - gap) / height))
                axis.imshow(image, interpolation="bicubic" if len(image) < 128 else "antialiased")
                axis.axis("off")
    return figure


def contact_sheet(images: Tensor) -> None:
    """uint8 [M, 3, H, W] side by side."""
    show(reconstruction_grid(channels_last(images), {}))


def channels_last(images: Tensor) -> np.ndarray:
    """[M, 3, H, W] -> [M, H, W, 3]."""
    return images.permute(0, 2, 3, 1).numpy()


def tokens(count: int) -> str:
    return f"{count} token" + "s" * (count > 1)


# ---- files ----


def save_images(folder: Path, originals: Tensor, rows: dict[int, Tensor]) -> None:
    """The shown images, uint8 [M, 3, H, W], as `original_0.png`, `32_tokens_0.png` … in `folder`, instead of
    the PNG files that are there: all of them at once.
    """
    named = {ORIGINAL: originals} | {f"{count}_tokens": row for count, row in rows.items()}
    with replacing(folder) as temporary:
        temporary.mkdir()
        for other in folder.glob("*"):  # what people keep there
            if other.is_dir():
                shutil.copytree(other, temporary / other.name, symlinks=True)
            elif other.suffix not in (".png", ".tmp"):
                shutil.copy2(other, temporary / other.name, follow_symlinks=False)
        for label, images in named.items():
            for i, image in enumerate(channels_last(images)):
                Image.fromarray(image).save(temporary / f"{label}_{i}.png")


def shown_counts(run: Run) -> list[int]:
    """The token counts that `reconstruct.ipynb` left images of. Raises `Lacking`."""
    counts = sorted(int(file.name.split("_")[0]) for file in (run / "recon").glob("*_tokens_0.png"))
    if not counts:
        raise Lacking(f"{run.path} has no reconstructions: {remedy(run)}")
    return counts


def remedy(run: Run) -> str:
    where = f"-p sweep={run.path.parent.name} -p run={run.name}"
    return f"make them with 'tok1d run notebooks/reconstruct.ipynb {where}'"


def originals_of(run: Run) -> np.ndarray:
    return read_row(run, ORIGINAL)


def read_row(run: Run, label: str) -> np.ndarray:
    """uint8 [M, H, W, 3]. Raises `Lacking`."""
    files = sorted((run / "recon").glob(f"{label}_*.png"), key=lambda file: int(file.stem.split("_")[-1]))
    if not files:
        raise Lacking(f"{run.path} has no images of {label.replace('_', ' ')}: {remedy(run)}")
    return np.stack([np.asarray(Image.open(file)) for file in files])
