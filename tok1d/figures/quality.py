"""Numbers of an evaluation against the token count: quality, codes in use, elastic beside fixed ones, how
many images need how many tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tok1d.config.registry import METRICS, NUMBERS, asked_as
from tok1d.evaluation.card import card_id, code_ceiling, protocol, same_card
from tok1d.figures.series import LINEAR, series_of
from tok1d.figures.style import COLUMN, STYLE, Drawn, End, height_for, label_ends, look, token_axis
from tok1d.runs import Lacking, Run, RunError

ASIDE = 0.12  # octaves at most between the marks of two lines at one token count
BESIDE = {True: 0.3, False: 0.8}  # octaves that all marks take, of lines with several counts and with one
LINE_TO_BEAT = {"color": "#888888", "linestyle": "--", "marker": "", "linewidth": 1.2}
PUBLISHED = Path(__file__).parent / "published.yaml"  # what the reference paper reports


class Same(Lacking):
    """A figure that would be another one again."""


def quality(runs: list[Run], metric: str = "psnr") -> Drawn:
    """A number of each run at each token count, with its interval; of rFID also what was `published`. Raises
    `RunError` when the runs were not measured alike, or one has no such number.
    """
    drawn = measured(runs, metric)
    for label, members in series_of(runs) if metric == "rfid" else ():
        for count, value in published(members[0].params).items():
            drawn.append({"series": label, "published": True, "num_tokens": count, "rfid": value})
    return drawn + linear_line(runs, metric)


def measured(runs: list[Run], metric: str) -> Drawn:
    """`numbers` of runs that all have it. Raises `RunError` for one that has not."""
    drawn = numbers(runs, metric)
    for run in runs:
        if not any(metric in row for row in run.evaluation["results"]):
            raise RunError(
                f"{run.path} was not evaluated for {metric}: "
                f"type '{run.to_evaluate} -p metrics=psnr,ssim,{asked_as(metric)}'"
            )
    return drawn


def linear_line(runs: list[Run], metric: str) -> Drawn:
    """The linear code of equal bits at each token count, as measured beside the first run that has it."""
    found: dict[int, dict[str, Any]] = {}
    for run in runs:
        evaluation = run.evaluation
        card = card_id(protocol(evaluation["card"], metric))
        for row in evaluation.get("linear_code") or ():
            if metric in row and row["num_tokens"] not in found:
                keys = ("num_tokens", metric, f"{metric}_interval")
                where = {"series": LINEAR, "run": str(run.path), "card": card}
                found[row["num_tokens"]] = where | {key: row[key] for key in keys if key in row}
    return [found[count] for count in sorted(found)]


def numbers(runs: list[Run], metric: str, *more: str) -> Drawn:
    """A number with its interval, and `more` numbers, wherever a run has it. Raises `RunError` when the runs
    were not measured alike.
    """
    same_card(runs, metric)
    keys = ("num_tokens", *more, metric, f"{metric}_interval")
    drawn = []
    for label, members in series_of(runs):
        for run in members:
            evaluation = run.evaluation
            card = card_id(protocol(evaluation["card"], metric))
            where = {"series": label, "run": str(run.path), "card": card}
            rows = [row for row in evaluation["results"] if metric in row]
            drawn += [where | {key: row[key] for key in keys if key in row} for row in rows]
    return drawn


def draw_quality(drawn: Drawn, metric: str = "psnr") -> Figure:
    """One line a series through the means of its seeds, each seed a dot, the interval a bar; what was
    published is a hollow mark.
    """
    with mpl.rc_context(STYLE):
        lines = len({d["series"] for d in drawn})
        figure = Figure(figsize=(COLUMN, height_for(lines)), layout="constrained")
        axis = figure.subplots()
        draw_lines(axis, drawn, metric)
    return figure


def draw_lines(axis: Axes, drawn: Drawn, metric: str, floor: float | None = None) -> None:
    labels = list(dict.fromkeys(d["series"] for d in drawn))
    own, others = ([d for d in drawn if ("published" in d) == there] for there in (False, True))
    lines = {label: at_counts([d for d in own if d["series"] == label], metric) for label in labels}
    ends = []
    for i, (label, points) in enumerate(lines.items()):
        shift, style = aside(label, lines), LINE_TO_BEAT if label == LINEAR else look(i)
        ends.append(draw_line(axis, label, points, NUMBERS[metric].scale, shift, style))
        hollow = [d for d in others if d["series"] == label]
        x, y = [shift * d["num_tokens"] for d in hollow], [NUMBERS[metric].scale * d[metric] for d in hollow]
        axis.plot(x, y, **style | {"markerfacecolor": "none", "linestyle": "none"})
    token_axis(axis, sorted({d["num_tokens"] for d in drawn}))
    axis.set_ylim(bottom=floor)
    axis.set_ylabel(f"{NUMBERS[metric].label} {'↑' if NUMBERS[metric].higher_is_better else '↓'}")
    if len(labels) > 1:
        label_ends(axis, ends)


def draw_line(axis: Axes, label: str, points: Drawn, scale: float, shift: float, style: dict) -> End:
    """Means, seeds and intervals at each token count, moved along x by a factor; returns its last point."""
    x, color = [p["num_tokens"] * shift for p in points], style["color"]
    means = [scale * p["mean"] for p in points]
    axis.plot(x, means, **style)
    for at, p in zip(x, points, strict=True):
        if len(p["seeds"]) > 1:
            seeds = scale * np.array(p["seeds"])
            axis.plot([at] * len(seeds), seeds, "o", color=color, markersize=2, alpha=0.5)
    axis.vlines(x, *scale * np.array([p["interval"] for p in points]).T, color=color, alpha=0.5)
    return End(label, x[-1], means[-1], color)


def aside(label: str, lines: dict[str, Drawn]) -> float:
    """A factor along x that tells this line's marks from those of others at the same token count."""
    several = len(lines[label]) > 1
    beside = [name for name, points in lines.items() if (len(points) > 1) == several]
    step = min(ASIDE, BESIDE[several] / len(beside))
    return 2 ** (step * (beside.index(label) - (len(beside) - 1) / 2))


def at_counts(drawn: Drawn, metric: str) -> list[dict[str, Any]]:
    """Of one series at each token count: the mean over seeds, each seed, and the mean of their intervals.

    Seeds are measured on the same images, so their mean is no more certain than each of them is.
    """
    found = []
    for count in sorted({d["num_tokens"] for d in drawn}):
        here = [d for d in drawn if d["num_tokens"] == count]
        ends = [d.get(f"{metric}_interval", (d[metric], d[metric])) for d in here]
        values = [d[metric] for d in here]
        found.append({
            "num_tokens": count, "mean": float(np.mean(values)), "seeds": values,
            "interval": np.mean(ends, axis=0).tolist(),
        })  # fmt: skip
    return found


# ---- codes in use ----


def codes(runs: list[Run]) -> Drawn:
    """The share of the codebook in use and the perplexity, of each run that has codes, and the most that
    either can be of so many tokens.
    """
    drawn = numbers(runs, "code_perplexity", "code_usage", "bits")
    cards = {str(run.path): run.evaluation["card"] for run in runs}
    for d in drawn:
        d["code_ceiling"] = code_ceiling(cards[d["run"]], d)
        d["codebook_size"] = round(2 ** (d.pop("bits") / d["num_tokens"]))
    return drawn


def draw_codes(drawn: Drawn) -> Figure:
    """Left the share of the codebook that the images' tokens touch, right how many codes do the work."""
    shares = [{**d, "code_usage": 100 * d["code_usage"]} for d in drawn]
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(2 * COLUMN, height_for(len({d["series"] for d in drawn}))), layout="constrained"
        )
        left, right = figure.subplots(1, 2)
        draw_lines(right, drawn, "code_perplexity", floor=0)
        right.set_ylabel("effective codes (perplexity)")
        draw_lines(left, shares, "code_usage", floor=0)
        draw_ceilings(left, drawn, lambda d: 100 * d["code_ceiling"] / d["codebook_size"])
        draw_ceilings(right, drawn, lambda d: d["code_ceiling"])
        left.set_ylabel("codebook in use (%)")
        for text in list(left.texts):  # the names stand once, at the right
            text.remove()
    return figure


def draw_ceilings(axis: Axes, drawn: Drawn, value: Callable[[dict[str, Any]], float]) -> None:
    """A dotted line through the most that can be measured at each token count, as far as it is in view."""
    found = sorted({(d["num_tokens"], value(d)) for d in drawn if "code_ceiling" in d})
    if found:
        top = max(axis.get_ylim()[1], 1.05 * found[0][1])
        axis.plot(*zip(*found, strict=True), color="#555", linestyle=":", linewidth=0.9)
        axis.set_ylim(0, top)


# ---- elastic beside fixed ----


def elastic(runs: list[Run], metric: str = "psnr") -> Drawn:
    """A number of elastic runs, and of fixed ones that are like them otherwise; empty if there are none.

    Raises as `quality`, and `Same` if its lines are those of `quality`.
    """
    drawn, groups = [], series_of(runs, within=("elastic", "num_latent_tokens"))
    pairs = [group for group in groups if len({run.params["elastic"] for run in group.runs}) > 1]
    same_card([run for _, members in pairs for run in members], metric)
    for label, members in pairs:
        for elastic, kind in ((True, "elastic"), (False, "fixed")):
            rows = measured([run for run in members if run.params["elastic"] == elastic], metric)
            name = f"{label}, {kind}" if len(pairs) > 1 else kind
            drawn += [row | {"series": name, "kind": kind} for row in rows]
    if drawn and lines_of(drawn) == lines_of(numbers(runs, metric)):
        raise Same("the figure of quality has the same lines, elastic and fixed, and no others")
    return drawn + linear_line([run for _, members in pairs for run in members], metric)


def lines_of(drawn: Drawn) -> list[list[tuple]]:
    """What is on each line, whatever it is called."""
    lines: dict[str, list[tuple]] = {}
    for d in drawn:
        lines.setdefault(d["series"], []).append((d["run"], d["num_tokens"]))
    return sorted(sorted(points) for points in lines.values())


def published(params: dict[str, Any]) -> dict[int, float]:
    """The reference paper's rFID by token count for runs of these parameters, on BDD100K by labels, with
    fixed token counts.
    """
    if "peer" in params:
        return {}
    init, like = params["encoder_init"], params["random_like"]
    if not params["bdd_labels"] or params["elastic"] or like not in ("", "mae"):
        return {}
    images = "clear_daytime" if params["weather"] or params["timeofday"] else "all_frames"
    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))[images].get(init, {})


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
