"""How every figure looks: widths of a paper's column, colors and marks for any eyes, labels at the lines."""

from __future__ import annotations

import html
import io
from typing import Any, NamedTuple

import numpy as np
from IPython.display import HTML, display
from IPython.display import Image as Picture
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

# Okabe-Ito: told apart by people with any kind of color vision, and in print
Drawn = list[dict[str, Any]]  # every number of a figure, each with its run and card
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
COLUMN, PAGE = 3.4, 7.0  # inches, the width of one column of a two-column paper, and of both
STYLE: Any = {  # matplotlib's stubs want every name of its parameters as a literal
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "xtick.labelsize": 7,
    "ytick.labelsize": 7, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e6e6e6", "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.4,
    "lines.markersize": 3.5, "figure.dpi": 200, "savefig.dpi": 300, "pdf.fonttype": 42,
    "legend.frameon": False, "text.parse_math": False,  # a dollar in a name is a dollar
}  # fmt: skip
FONT = 7  # points, of labels inside a figure


def look(i: int) -> dict[str, Any]:
    """Color, mark and stroke of the i-th line; no two of the first 49 are alike."""
    again, color = divmod(i, len(COLORS))
    mark = MARKS[(i + again) % len(MARKS)]
    return {"color": COLORS[color], "marker": mark, "linestyle": ("-", "--", ":")[again % 3]}


def height_for(lines: int) -> float:
    """Inches, so that the names of as many lines stand beside the axes."""
    return max(2.4, 0.9 + 0.13 * lines)


class End(NamedTuple):
    """The last point of a line, in data coordinates, and what to write there."""

    text: str
    x: float
    y: float
    color: str


def label_ends(axis: Axes, ends: list[End], inside: float = 0.0) -> None:
    """Write each line's name to the right of the axes in its color, none upon another, with a thin line to
    its end; next to the end itself where that is in the left share `inside` of the axes. To be called last:
    limits of the axes are final then.
    """
    axis.autoscale_view()
    axis.autoscale(False)
    figure = axis.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    gap = 1.25 * FONT / 72 / (axis.get_position().height * figure.get_figheight())  # of the axes' height
    wanted = axis.transAxes.inverted().transform(axis.transData.transform([(e.x, e.y) for e in ends]))
    early = wanted[:, 0] < inside
    places = np.empty(len(ends))
    for column in (early, ~early):
        places[column] = spread(wanted[column, 1], gap)
    for end, at, (x, _) in zip(ends, places, wanted, strict=True):
        beside = x + 0.05 if x < inside else 1.05
        leader = {"arrowstyle": "-", "color": end.color, "linewidth": 0.5, "alpha": 0.7, "relpos": (0, 0.5)}
        axis.annotate(
            end.text, (end.x, end.y), (beside, at), xycoords="data",
            textcoords="axes fraction", color=end.color, fontsize=FONT, va="center",
            arrowprops=leader | {"shrinkA": 1, "shrinkB": 2}, annotation_clip=False,
        )  # fmt: skip


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Places in 0 … 1 near the wanted ones, at least `gap` apart: neighbors that are too close move as one
    block.
    """

    def inside(middle: float, n: int) -> float:
        half = gap * (n - 1) / 2
        return min(max(middle, half), max(1 - half, half))

    blocks: list[tuple[float, int]] = []  # middle, number of places
    for y in np.sort(wanted):
        blocks.append((inside(y, 1), 1))
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < gap * (blocks[-1][1] + blocks[-2][1]) / 2:
            (b, m), (a, n) = blocks.pop(), blocks.pop()
            blocks.append((inside((a * n + b * m) / (n + m), n + m), n + m))
    places = [middle + gap * (i - (n - 1) / 2) for middle, n in blocks for i in range(n)]
    found = np.empty(len(wanted))
    found[np.argsort(wanted, kind="stable")] = places
    return found


def token_axis(axis: Axes, counts: list[int]) -> None:
    """Token counts along x, doubling; every count that was measured has its tick."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, map(str, counts))
    axis.minorticks_off()
    axis.set_xlabel("tokens per image")
    if len(counts) == 1:
        axis.set_xlim(counts[0] / 2, counts[0] * 2)


HALO = [withStroke(linewidth=2, foreground="white")]  # around text on no background, for a dark page


def show(figure: Figure, caption: str = "") -> None:
    """Display a figure in a notebook, sharp and at its own size, and below it what it shows. One of images
    alone has no background; one with axes is marked as a `plot`: a dark page may turn its colors around.
    """
    buffer, plot = io.BytesIO(), any(axis.axison for axis in figure.axes)
    figure.savefig(buffer, format="png", dpi=200, transparent=not plot)
    width = round(figure.get_figwidth() * 110)
    alt = caption or "Images side by side"
    display(Picture(buffer.getvalue(), width=width, alt=alt, metadata={"plot": plot}))
    if caption:
        display(HTML(f'<p class="caption"><em>{html.escape(caption)}</em></p>'))
