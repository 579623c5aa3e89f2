"""What guidance changes: generated images come nearer to real ones, or become less different."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure

from tok1d.config.registry import GENERATED, NUMBERS
from tok1d.evaluation.card import card_id, protocol, same_card
from tok1d.figures.series import series_of
from tok1d.figures.style import COLUMN, STYLE, Drawn, look
from tok1d.runs import Run

RECONSTRUCTED = {made: own for own, made in GENERATED.items()}
WORDS = {"gfid": "gFID", "gfid_infinity": "gFID∞"}
QUALITY, DIVERSITY = ("gfid", "kid"), ("recall", "coverage")


def guidance(runs: list[Run]) -> Drawn:
    """Distance and diversity of the samples of each run, with all their tokens, and its guidance. Empty
    unless there are several scales. Raises `RunError` when the runs were not measured alike.
    """
    runs = [run for run in runs if run.kind == "prior"]
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
            ends = [d.get(f"{quality}_interval", (d[quality],) * 2) for d in rows]
            low, high = ([scale * end[side] for end in ends] for side in (0, 1))
            for axis, name in zip(axes, ("guidance", reach), strict=False):
                x, style = [d[name] for d in rows], look(i)
                axis.plot(x, y, label=series, **style)
                axis.vlines(x, low, high, color=style["color"], alpha=0.5)
            for d, height in zip(rows, y, strict=True) if reach else ():
                axes[1].annotate(f"{d['guidance']:g}", (d[reach], height), (3, 3), textcoords="offset points")
        axes[0].set_xlabel("guidance")
        axes[0].set_ylabel(label)
        if reach:
            axes[1].set_xlabel(f"{NUMBERS[reach].label} ↑, beside each point its guidance")
        if len({d["series"] for d in drawn}) > 1:
            axes[0].legend()
    return figure
