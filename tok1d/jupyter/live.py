"""The doctor's panel: what it watches as small curves, and below them what it says; redrawn in place.

Safe in a headless papermill run, as `tok1d.jupyter.live.LiveCurve` is: one display that is updated, no
widget.
"""

from __future__ import annotations

import base64
import html
import io
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tok1d.config.registry import DIAGNOSES, Diagnosis
from tok1d.runs import Run
from tok1d.system.environment import headless, kernel_shell
from tok1d.training.doctor import Doctor, read_diagnoses
from tok1d.training.symptoms import PLOTS, Case, Context, Plot, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, WIDTH, HEIGHT = 3, 9.2, 1.85  # of small plots; inches, of a row of them
EASE = 20  # drawing takes a twentieth of the time at most
POINTS = 400  # a curve's most: a longer one is thinned
COLORS = (
    "#3b6fd4", "#d9772b", "#2f9e6e", "#b5549c", "#8a6d3b", "#5aa6c9", "#777777", "#e0b02f", "#1f3a6e",
)  # fmt: skip
SICK, WELL, DARK = "#c0392b", "#2f9e6e", "#555555"


class DoctorPanel:
    """The doctor's view of `run` while it trains, as the notebook shows it.

        panel = DoctorPanel(run)
        train(..., on_log=panel.update)
        panel.close()

    every: least seconds between two redraws; default 2 when somebody watches, 30 when `headless()`; a new
    diagnosis is shown at once. Outside a Jupyter kernel nothing is displayed; `to_html()` gives the panel
    anywhere.
    """

    def __init__(self, run: Run, *, every: float | None = None):
        self.doctor = Doctor(run)
        self.every = (30.0 if headless() else 2.0) if every is None else every
        self._handle, self._due = None, -math.inf

    def update(self, record: Record) -> None:
        """Take in one record, as `train` hands it to `on_log`."""
        if self.doctor.see(record) or time.monotonic() >= self._due:
            self._draw()

    def close(self) -> None:
        """Draw the final state, whatever the pace."""
        self._draw()

    def to_html(self) -> str:
        """One self-contained HTML element: verdict, small curves as a PNG, and a paragraph a diagnosis."""
        doctor = self.doctor
        records = with_codes_used(doctor.records, doctor.context)
        return panel_html(records, doctor.now, [*read_diagnoses(doctor.run), *doctor.found])

    def _draw(self) -> None:
        if kernel_shell() is None or not self.doctor.records:
            return
        from IPython import display

        began = time.monotonic()
        visible_plots = display.HTML(self.to_html())
        if self._handle is None:
            self._handle = display.display(visible_plots, display_id=True)
        else:
            self._handle.update(visible_plots)
        took = time.monotonic() - began
        self._due = began + took + (max(self.every, EASE * took) if self.every else 0)


def panel_html(records: list[Record], now: Sequence[Diagnosis], found: Sequence[Diagnosis] = ()) -> str:
    """The panel of these records; `now` are the diagnoses that hold, `found` all that were made."""
    step = f"step {records[-1]['step']:,.0f}" if records else "no record yet"
    skipped = records[-1].get("skipped", 0) if records else 0
    progress = step + (f", {skipped:.0f} skipped" if skipped else "")
    verdict = "no complaint" if not now else "1 complaint" if len(now) == 1 else f"{len(now)} complaints"
    over = {d.name: d for d in found if d.name not in {d.name for d in now}}
    items = "".join(_item(d, "") for d in now) + "".join(_item(d, " over") for d in over.values())
    png = base64.b64encode(_png(records, now)).decode()
    picture = (
        f'<img width="{100 * WIDTH:.0f}" alt="What the doctor watches" src="data:image/png;base64,{png}">'
    )
    return (
        f'<div class="tok1d-doctor"><style>{_STYLE}</style>'
        f'<p class="{"sick" if now else "well"}"><b>● {verdict}</b> <span>{progress}</span></p>{items}'
        f"{picture}</div>"
    )


def _item(d: Diagnosis, kind: str) -> str:
    name, meaning, evidence, tip = map(html.escape, (d.name, DIAGNOSES[d.name], d.evidence, d.advice))
    since = f"was from step {d.since_step}, over by now" if kind else f"since step {d.since_step}"
    return (
        f'<p class="item{kind}"><b>{name}</b> <span>{since}</span><br>{_sentence(meaning)} '
        f"{_sentence(evidence)}<br><em>{_sentence(tip)}</em></p>"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


_STYLE = """
.tok1d-doctor{margin:.5em 0;font-size:14px;line-height:1.45;max-width:920px}
.tok1d-doctor p{margin:.3em 0}
.tok1d-doctor span{opacity:.8;font-variant-numeric:tabular-nums}
.tok1d-doctor .well,.tok1d-doctor .sick{border-left:3px solid #2f9e6e;padding-left:.8em}
.tok1d-doctor .sick{border-color:#c0392b}
.tok1d-doctor .item{border-left:3px solid #c0392b;padding:.1em 0 .1em .8em;margin:.5em 0}
.tok1d-doctor .over{border-color:#bbb;opacity:.85}
.tok1d-doctor em{font-style:normal;font-weight:600}
.tok1d-doctor img{display:block;max-width:100%;height:auto;margin-top:.5em}
"""


# ------------------------------------------------------------------------------------------ small curves


def with_codes_used(records: list[Record], context: Context) -> list[Record]:
    """The records with the number of distinct codes beside its share, `code_usage`."""
    case = Case(records, context)
    return [
        r | {"codes_used": r["code_usage"] * case.possible(r)} if "code_usage" in r else r for r in records
    ]


def shown(records: list[Record]) -> list[Plot]:
    """The plots that these records have anything for."""
    keys = {key for record in records for key in record}
    return [plot for plot in PLOTS if keys & plot.curves.keys()]


def draw_panel(records: list[Record], now: Sequence[Diagnosis] = ()) -> Figure:
    """Small plots of what the doctor watches, as a matplotlib Figure; a red stretch where something is wrong.

    It belongs to no pyplot state, so there is nothing to close.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    plots = shown(records)
    rows = -(-len(plots) // COLUMNS) or 1
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(WIDTH, rows * HEIGHT), layout=layout)
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    last = max((record["step"] for record in records), default=1)
    for axis, plot in zip(axes, plots, strict=False):
        _draw_plot(axis, plot, records)
        axis.set_xlim(0, last)
        since = [diagnosis.since_step for diagnosis in now if diagnosis.name in plot.names]
        if since:
            axis.axvspan(min(since), last, color=SICK, alpha=0.12, linewidth=0)
    figure.supxlabel("step", fontsize=8, color=DARK)
    for axis in axes[len(plots) :]:
        axis.set_visible(False)
    return figure


def _draw_plot(axis, plot: Plot, records: list[Record]) -> None:
    least, most = math.inf, 0.0
    for (key, label), color in zip(plot.curves.items(), COLORS, strict=False):
        points = [(r["step"], r[key]) for r in records if key in r and math.isfinite(r[key])]
        if points:
            x, y = np.array(points[:: max(1, len(points) // POINTS)], float).T
            axis.plot(x, y * (100 if plot.share else 1), color=color, linewidth=1.3, label=label)
            least, most = min(least, y.min()), max(most, y.max())
    _scale(axis, plot, least, most)
    labels = [line for line in axis.get_lines() if not line.get_label().startswith("_")]
    lines = -(-len(labels) // 3)
    axis.set_title(plot.title, loc="left", fontsize=9, fontweight="bold", pad=5 + 10 * max(1, lines))
    if labels:
        legend = axis.legend(
            handles=labels, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.1,
            fontsize=7.5, frameon=False, handlelength=1, handletextpad=0.4, columnspacing=1, borderpad=0,
            labelspacing=0.2, labelcolor=DARK,
        )  # fmt: skip
        legend.set_in_layout(False)  # a long one does not make its plot small
    axis.tick_params(which="both", colors=DARK, labelsize=7.5, length=0)
    axis.spines[:].set_visible(False)
    axis.spines["bottom"].set(visible=True, color="#bbb")
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)


def _scale(axis, plot: Plot, least: float, most: float) -> None:
    """Per cent, decades where there are some, or plain numbers from 0."""
    if plot.share:
        axis.set_ylim(-2, max(100, 100 * most))  # so that a line at 0 is seen
        axis.yaxis.set_major_formatter("{x:g} %")
    elif plot.log and least > 0 and math.floor(math.log10(most)) > math.ceil(math.log10(least)):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
    elif least >= 0:
        axis.set_ylim(0, 1.08 * most or 1)


def _png(records: list[Record], now: Sequence[Diagnosis]) -> bytes:
    buffer = io.BytesIO()
    draw_panel(records, now).savefig(buffer, format="png", dpi=160, facecolor="white")
    return buffer.getvalue()


class LiveCurve:
    """Loss (left axis) and PSNR in dB (right axis) against the step, redrawn in place while training runs.

        curve = LiveCurve("toy roads, 32 tokens")
        for record in train(...):      # {"step": 200, "loss": 0.041, "psnr": 21.3}; keys may be missing
            curve.update(record)
        curve.close()

    every: seconds between two redraws; default 2 when somebody watches, 30 when `headless()`. records: those
    of earlier starts, such as `run.metrics`.
    Outside a Jupyter kernel it only collects; `figure()` gives the matplotlib figure anywhere.
    """

    def __init__(
        self, title: str = "", xlabel: str = "step", ylabel: str = "loss", *, every: float | None = None,
        records: Sequence[Record] = (),
    ):  # fmt: skip
        self.title, self.xlabel, self.ylabel = title, xlabel, ylabel
        self.every = (30.0 if headless() else 2.0) if every is None else every
        self.points: dict[str, list[tuple[float, float]]] = {"loss": [], "psnr": []}
        self._handle, self._drawn_at = None, -float("inf")
        for record in records:
            self._add(record)

    def update(self, record: Record) -> None:
        """Add {"step": int, "loss": float, "psnr": float in dB}; missing, None or NaN adds no point. Of steps
        that are run again, the earlier points go.
        """
        self._add(record)
        if time.monotonic() - self._drawn_at >= self.every:
            self._draw()

    def _add(self, record: Record) -> None:
        for key, points in self.points.items():
            while points and points[-1][0] >= record.get("step", math.inf):
                points.pop()
            if record.get(key) is not None and np.isfinite(record[key]):
                points.append((float(record.get("step", len(points))), float(record[key])))

    def close(self) -> None:
        """Draw the final state, whatever the pace."""
        self._draw()

    def figure(self):
        """The curve as a matplotlib Figure. It belongs to no pyplot state, so there is nothing to close."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        left = figure.add_subplot()
        left.set_title(self.title, loc="left", fontsize=11, fontweight="bold", parse_math=False)
        left.set_xlabel(self.xlabel, color="#555")
        right = left.twinx()
        for axis, key, label, color in (
            (left, "loss", self.ylabel, "#3b6fd4"), (right, "psnr", "PSNR (dB)", "#d9772b"),
        ):  # fmt: skip
            _draw_line(axis, np.array(self.points[key], float).reshape(-1, 2), color)
            axis.set_ylabel(label, color=color)
            axis.tick_params(colors="#555", length=0)
            axis.spines[:].set_visible(False)
        left.spines["bottom"].set(visible=True, color="#bbb")
        left.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        left.set_axisbelow(True)
        right.set_visible(bool(self.points["psnr"]))
        values = [v for _, v in self.points["loss"] if v > 0]
        if values and len(values) == len(self.points["loss"]) and max(values) > 20 * min(values):
            left.set_yscale("log")
        return figure

    def _draw(self) -> None:
        if kernel_shell() is None or not any(self.points.values()):
            return
        from IPython import display

        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png", dpi=144, facecolor="white")
        alt = f"{self.ylabel} and PSNR by {self.xlabel}: {self.title}"
        image = display.Image(buffer.getvalue(), width=680, alt=alt, metadata={"plot": True})
        if self._handle is None:
            self._handle = display.display(image, display_id=True)
        else:
            self._handle.update(image)
        self._drawn_at = time.monotonic()


def _draw_line(axis, points: np.ndarray, color: str) -> None:
    """points [n, 2]. Few points: a line with dots. Many: the raw values pale, their moving average strong."""
    x, y = points[:, 0], points[:, 1]
    if len(x) < 60:
        axis.plot(x, y, color=color, linewidth=1.8, marker="o", markersize=3)
        return
    window = max(3, len(y) // 40)
    padded = np.pad(y, (window // 2, window - 1 - window // 2), mode="edge")
    axis.plot(x, y, color=color, linewidth=0.7, alpha=0.25)
    axis.plot(x, np.convolve(padded, np.ones(window) / window, mode="valid"), color=color, linewidth=1.8)
