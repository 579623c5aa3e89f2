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

from tok1d.config.registry import GENERATED, NUMBERS
from tok1d.figures.guidance import RECONSTRUCTED, WORDS
from tok1d.figures.images import channels_last, picture_rows
from tok1d.figures.quality import LINE_TO_BEAT
from tok1d.figures.style import COLUMN, STYLE, Drawn, look, token_axis
from tok1d.generation.generator import MaskedStep


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
