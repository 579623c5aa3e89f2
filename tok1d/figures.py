"""Figures, drawn from the files in run folders and from nothing else.

Each figure is saved as PNG and PDF beside a JSON that names the run and the value of every number drawn.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from IPython.display import Image as Picture
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from tok1d.card import same_card
from tok1d.metrics import NUMBERS, asked_as
from tok1d.runs import Run, RunError, replacing

# Okabe-Ito: told apart by people with any kind of colour vision, and in print
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLUMN = 3.4  # inches, the width of one column of a two-column paper
STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "xtick.labelsize": 7,
    "ytick.labelsize": 7, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e6e6e6", "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.4,
    "figure.dpi": 200, "savefig.dpi": 300, "pdf.fonttype": 42, "legend.frameon": False,
}  # fmt: skip


def quality_against_tokens(runs: list[Run], metric: str = "psnr") -> tuple[Figure, list[dict[str, Any]]]:
    """One line a run: the metric against the token count, doubling along the axis; its interval as a band.

    Raises `RunError` when the runs were not measured alike, or one has no such number.
    """
    same_card(runs, metric)
    number = NUMBERS[metric]
    drawn = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.4), layout="constrained")
        axis = figure.subplots()
        for run, colour in zip(runs, COLOURS * len(runs), strict=False):
            rows = rows_with(run, metric)
            counts = [row["num_tokens"] for row in rows]
            values = [number.scale * row[metric] for row in rows]
            axis.plot(counts, values, "o-", color=colour, markersize=3.5, label=run.name)
            bands = [row.get(f"{metric}_interval", (row[metric], row[metric])) for row in rows]
            low, high = (number.scale * end for end in np.array(bands, float).T)
            if len(rows) > 1:
                axis.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                axis.vlines(counts, low, high, color=colour)
            keys = ("num_tokens", metric, f"{metric}_interval")
            drawn += [{"run": str(run.path)} | {k: row[k] for k in keys if k in row} for row in rows]
        counts = sorted({d["num_tokens"] for d in drawn})
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, map(str, counts))
        axis.minorticks_off()
        axis.set_xlabel("tokens per image")
        axis.set_ylabel(number.label)
        if len(runs) > 1:
            axis.legend()
    return figure, drawn


def rows_with(run: Run, metric: str) -> list[dict[str, Any]]:
    """A run's results that have a number. Raises `RunError` if none does."""
    rows = [row for row in run.evaluation["results"] if metric in row]
    if not rows:
        raise RunError(
            f"{run.path} was not evaluated for {metric}: "
            f"type 'tok1d evaluate {run.path} -p metrics=psnr,ssim,{asked_as(metric)}'"
        )
    return rows


def reconstructions(run: Run) -> tuple[Figure, list[dict[str, Any]]]:
    """The images that `reconstruct.ipynb` left in the run folder, originals first, a row for each token
    count.
    """
    files = sorted((run / "recon").glob("*_0.png"))
    counts = sorted(int(file.name.split("_")[0]) for file in files if not file.name.startswith("original"))
    if not counts:
        raise RunError(
            f"{run.path} has no reconstructions: "
            f"make them with 'tok1d run notebooks/reconstruct.ipynb -p run={run.name}'"
        )
    rows = {tokens(count): _read_row(run, f"{count}_tokens") for count in counts}
    drawn = [{"run": str(run.path), "num_tokens": count} for count in counts]
    return reconstruction_grid(_read_row(run, "original"), rows), drawn


def reconstruction_grid(originals: Tensor | np.ndarray, rows: dict[str, np.ndarray]) -> Figure:
    """Originals above one row of reconstructions per label, the same images in every row: uint8 [M, H, W, 3]
    each.
    """
    pictures = {"original": originals} | rows
    tile, label, gap = 0.86, 0.75, 0.03  # inches
    width, height = label + tile * len(originals), tile * len(pictures)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        for r, (name, images) in enumerate(pictures.items()):
            top = 1 - (r + 1) * tile / height
            figure.text((label - 0.08) / width, top + tile / height / 2, name, ha="right", va="center")
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


def _read_row(run: Run, label: str) -> np.ndarray:
    files = sorted((run / "recon").glob(f"{label}_*.png"), key=lambda file: int(file.stem.split("_")[-1]))
    return np.stack([np.asarray(Image.open(file)) for file in files])


def code_usage(runs: list[Run]) -> tuple[Figure, list[dict[str, Any]]]:
    """One bar a run: the effective number of codes (perplexity) at the run's largest token count, 0 for kl,
    which has no codes.
    """
    drawn = []
    for run in runs:
        result = run.evaluation["results"][-1]
        keys = ("num_tokens", "code_perplexity", "code_usage")
        drawn.append({"run": str(run.path)} | {key: result.get(key, 0) for key in keys})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 0.7 + 0.3 * len(runs)), layout="constrained")
        axis = figure.subplots()
        bars = axis.barh(
            [run.name for run in runs], [d["code_perplexity"] for d in drawn], 0.6, color=COLOURS[0]
        )
        axis.bar_label(bars, [f"{d['code_perplexity']:,.0f}" for d in drawn], padding=3, fontsize=7)
        axis.margins(x=0.15)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("effective codes (perplexity)")
        axis.invert_yaxis()
    return figure, drawn


def training_curves(runs: list[Run]) -> tuple[Figure, list[dict[str, Any]]]:
    """One line a run: PSNR of the training batch against the step, at full token count only."""
    drawn = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.4), layout="constrained")
        axis = figure.subplots()
        for run, colour in zip(runs, COLOURS * len(runs), strict=False):
            metrics = run.metrics
            most = max(record["num_tokens"] for record in metrics)
            full = [record for record in metrics if record["num_tokens"] == most]
            axis.plot([r["step"] for r in full], [r["psnr"] for r in full], color=colour, label=run.name)
            drawn += [{"run": str(run.path), "step": r["step"], "psnr": r["psnr"]} for r in full]
        axis.set_xlabel("step")
        axis.set_ylabel("PSNR of the training batch (dB)")
        if len(runs) > 1:
            axis.legend()
    return figure, drawn


def save(figure: Figure, path: str | Path, drawn: list[dict[str, Any]], caption: str) -> Figure:
    """Write `path`.png, .pdf and .json (caption and every number drawn); returns the figure, to be shown."""
    path = Path(path)
    for kind in ("png", "pdf"):
        with replacing(path.with_suffix(f".{kind}")) as temporary:
            figure.savefig(temporary, format=kind)
    with replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({"caption": caption, "drawn": drawn}, indent=1) + "\n")
    return figure


def show(figure: Figure) -> None:
    """Display a figure in a notebook, sharp and at its own size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    display(Picture(buffer.getvalue(), width=round(figure.get_figwidth() * 110)))


def save_images(folder: Path, originals: Tensor, rows: dict[int, Tensor]) -> None:
    """The shown images, uint8 [M, 3, H, W], as `original_0.png`, `32_tokens_0.png` … in `folder`, and nothing
    else.
    """
    for old in folder.glob("*.png"):
        old.unlink()
    for label, images in {
        "original": originals,
        **{f"{count}_tokens": row for count, row in rows.items()},
    }.items():
        for i, image in enumerate(channels_last(images)):
            with replacing(folder / f"{label}_{i}.png") as temporary:
                Image.fromarray(image).save(temporary, format="PNG")
