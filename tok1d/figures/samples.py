"""Figures of generated images: a row for each thing that was asked for, more tokens from left to right, what
guidance changes, and the real images that are nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from tok1d.config.registry import NUMBERS
from tok1d.figures.draw import save
from tok1d.figures.images import channels_last, picture_rows
from tok1d.figures.style import COLUMN, STYLE, Drawn, look, show, token_axis
from tok1d.runs import Run

WORDS = {"gfid": "gFID", "gfid_infinity": "gFID∞"}


def keep(run: Run, name: str, figure: Figure, caption: str, drawn: Drawn | None = None) -> None:
    """Show a figure of a prior's samples, and keep it in `samples/` of its run."""
    show(save(figure, run / "samples" / name, drawn or [], caption))


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


def against_length(
    results: Sequence[Mapping[str, Any]], tokenizer: Sequence[Mapping[str, Any]]
) -> Figure | None:
    """gFID, or KID, against the number of generated tokens, beside the tokenizer's own rFID of as many images
    (another distance: to each other, they say how much generating adds). None if neither was measured.
    """
    pairs = [("gfid", "rfid"), ("kid", "kid")]
    shown = [pair for pair in pairs if all(pair[0] in row for row in results) and results]
    if not shown:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN * len(shown), 2.4), layout="constrained")
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for axis, (name, own) in zip(axes, shown, strict=True):
            scale = NUMBERS[own].scale
            for i, (label, rows, number) in enumerate(
                (("generated", results, name), ("reconstructed", tokenizer, own))
            ):
                points = [(row["num_tokens"], row[number] * scale) for row in rows if number in row]
                if points:
                    axis.plot(*zip(*points, strict=True), label=label, **look(i))
            token_axis(axis, [row["num_tokens"] for row in results])
            axis.set_ylabel(WORDS.get(name, NUMBERS[own].label))
            axis.set_ylim(bottom=0)
            axis.legend()
    return figure
