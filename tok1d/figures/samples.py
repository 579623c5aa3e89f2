"""Figures of generated images: a row for each thing that was asked for, more tokens from left to right, what
guidance changes, and the real images that are nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from tok1d.config.registry import NUMBERS
from tok1d.evaluation.card import card_id, protocol, same_card
from tok1d.evaluation.generated import GENERATED
from tok1d.figures.images import channels_last, picture_rows
from tok1d.figures.quality import LINE_TO_BEAT
from tok1d.figures.series import series_of
from tok1d.figures.style import COLUMN, STYLE, Drawn, look, token_axis
from tok1d.generation.generator import MaskedStep
from tok1d.runs import Run

RECONSTRUCTED = {made: own for own, made in GENERATED.items()}
WORDS = {"gfid": "gFID", "gfid_infinity": "gFID∞"}


def in_rows(images: Tensor, words: Sequence[Mapping[str, str]], most: int = 8) -> Figure:
    """uint8 [B, 3, S, S] -> a row of at most `most` images for each thing that was asked for."""
    rows: dict[str, list[np.ndarray]] = {}
    for image, asked in zip(channels_last(images), words, strict=True):
        rows.setdefault("\n".join(asked.values()) or "anything", []).append(image)
    least = min(most, *(len(row) for row in rows.values()))
    return picture_rows({label: np.stack(row[:least]) for label, row in rows.items()})


def build_up(by_count: Mapping[int, Tensor]) -> Figure:
    """The same samples with more and more tokens, uint8 [B, 3, S, S] by number of tokens: a row each."""
    return picture_rows(
        {f"{k} token{'s' * (k > 1)}": channels_last(images) for k, images in sorted(by_count.items())}
    )


def nearest(made: Tensor, real: Tensor) -> Figure:
    """Generated images above the training images that are most like them, uint8 [B, 3, S, S] each."""
    return picture_rows({"generated": channels_last(made), "nearest\ntraining\nimage": channels_last(real)})


def completions(original: Tensor, known: Tensor | None, made: Tensor, count: int) -> Figure:
    """A real image [1, 3, S, S], what its first `count` tokens are as a picture (None: none, a fixed
    tokenizer's), and pictures [B, 3, S, S] that begin with them.
    """
    rows = {"original": channels_last(original)}
    if known is not None:
        rows[f"its first\n{count} tokens"] = channels_last(known)
    return picture_rows(rows | {f"{count} tokens\nkept": channels_last(made)})


def masked_steps(steps: Sequence[MaskedStep], most: int = 8) -> Figure:
    """What a masked prior has after each of its steps: a row each, and how many tokens are kept in it."""
    K = steps[0].ids.shape[1]
    return picture_rows({
        f"step {i}\n{int((step.ids[0] >= 0).sum())} of {K} kept": channels_last(step.images[:most])
        for i, step in enumerate(steps, 1)
    })  # fmt: skip


def against_length(evaluation: Mapping[str, Any]) -> Figure | None:
    """gFID and KID against the number of generated tokens, with intervals (over seeds, if there are several),
    beside as many training images (dashed) and the tokenizer's own rFID of as many images: another distance,
    of reconstructions to their originals. None if neither was measured.
    """
    made = evaluation.get("over_seeds") or evaluation["results"]
    lines = {"generated": made, "reconstructed": evaluation["tokenizer"]["results"]}
    shown = [own for own in ("rfid", "kid") if all(GENERATED.get(own, own) in row for row in made)]
    if not shown:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN * len(shown), 2.4), layout="constrained")
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for axis, own in zip(axes, shown, strict=True):
            for i, (label, rows) in enumerate(lines.items()):
                draw_with_intervals(axis, rows, GENERATED.get(own, own) if i == 0 else own, label, look(i))
            for row in evaluation.get("training", ()):
                height = row[GENERATED.get(own, own)] * NUMBERS[own].scale
                axis.axhline(height, **LINE_TO_BEAT, label="training images")
            token_axis(axis, [row["num_tokens"] for row in made])
            axis.set_ylabel(f"{WORDS.get(GENERATED.get(own, own), NUMBERS[own].label)} ↓")
            axis.set_ylim(bottom=0)
            axis.legend()
    return figure


def draw_with_intervals(axis: Axes, rows: Drawn, name: str, label: str, style: dict[str, Any]) -> None:
    scale = NUMBERS[RECONSTRUCTED.get(name, name)].scale
    found = [row for row in rows if name in row]
    x = [row["num_tokens"] for row in found]
    axis.plot(x, [scale * row[name] for row in found], label=label, **style)
    ends = [[scale * end for end in row.get(f"{name}_interval", (row[name],) * 2)] for row in found]
    axis.vlines(x, *zip(*ends, strict=True), color=style["color"], alpha=0.5)


# ---- what guidance changes ----

QUALITY, DIVERSITY = ("gfid", "kid"), ("recall", "coverage")


def guidance(runs: list[Run]) -> Drawn:
    """Distance and diversity of the samples of each run, with all their tokens, and its guidance. Empty
    unless there are several scales. Raises `RunError` when the runs were not measured alike.
    """
    same_card(runs)
    drawn: Drawn = []
    for label, members in series_of(runs, within=("guidance",)):
        for run in members:
            evaluation = run.evaluation
            row = (evaluation.get("over_seeds") or evaluation["results"])[-1]
            numbers = {k: v for k, v in row.items() if k.removesuffix("_interval") in (*QUALITY, *DIVERSITY)}
            where = {"series": label, "run": str(run.path), "card": card_id(protocol(evaluation["card"]))}
            scale = evaluation["card"]["sampling"]["guidance"]
            drawn.append(where | {"guidance": scale, "num_tokens": row["num_tokens"]} | numbers)
    several = len({d["guidance"] for d in drawn}) > 1
    return drawn if several and all(d.keys() & set(QUALITY) for d in drawn) else []


def draw_guidance(drawn: Drawn) -> Figure:
    """Left the distance to real images against guidance, right against the share of them that samples reach,
    if that was measured.
    """
    quality = next(name for name in QUALITY if all(name in d for d in drawn))
    reach = next((name for name in DIVERSITY if all(name in d for d in drawn)), "")
    scale = NUMBERS[RECONSTRUCTED.get(quality, quality)].scale
    label = f"{WORDS.get(quality, NUMBERS[RECONSTRUCTED.get(quality, quality)].label)} ↓"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN * (1 + bool(reach)), 2.4), layout="constrained")
        axes = figure.subplots(1, 1 + bool(reach), squeeze=False)[0]
        for i, series in enumerate(dict.fromkeys(d["series"] for d in drawn)):
            rows = sorted((d for d in drawn if d["series"] == series), key=lambda d: d["guidance"])
            y = [scale * d[quality] for d in rows]
            for axis, name in zip(axes, ("guidance", reach), strict=False):
                axis.plot([d[name] for d in rows], y, label=series, **look(i))
            for d, height in zip(rows, y, strict=True) if reach else ():
                axes[1].annotate(f"{d['guidance']:g}", (d[reach], height), (3, 3), textcoords="offset points")
        axes[0].set_xlabel("guidance")
        axes[0].set_ylabel(label)
        if reach:
            axes[1].set_xlabel(f"{NUMBERS[reach].label} ↑, beside each point its guidance")
        if len({d["series"] for d in drawn}) > 1:
            axes[0].legend()
    return figure
