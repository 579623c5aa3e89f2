"""How many images of a data set reach a wished quality with how many tokens, a line each tokenizer."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.figure import Figure

from tok1d.config.registry import METRICS
from tok1d.figures.style import COLUMN, STYLE, Drawn, look, token_axis


def draw_needs(rows: Mapping[str, Drawn], metric: str, value: float) -> Figure:
    """Rows of `tok1d.explore.fewest.needs` by the tokenizer's name: the share of images that need at most as
    many tokens for this value of the metric, such as psnr 25.
    """
    (number,) = list(METRICS[metric].numbers.values())[:1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.4), layout="constrained")
        axis = figure.subplots()
        for i, (label, line) in enumerate(rows.items()):
            axis.plot(
                [r["num_tokens"] for r in line], [100 * r["share"] for r in line], label=label, **look(i)
            )
        token_axis(axis, sorted({r["num_tokens"] for line in rows.values() for r in line}))
        axis.set_ylim(0, 100)
        axis.set_ylabel(f"% of images, {number.label} {'≥' if number.higher_is_better else '≤'} {value:g}")
        if len(rows) > 1:
            axis.legend()
    return figure
