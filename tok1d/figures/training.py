"""Quality against the time that training took."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from tok1d.evaluation.card import card_id
from tok1d.figures.images import tokens
from tok1d.figures.series import series_of, shared_count
from tok1d.figures.style import COLUMN, STYLE, Drawn, End, height_for, label_ends, look
from tok1d.runs import Lacking, Run

POINTS = 60  # of a curve; each is the mean of the records around it
UNITS = (("hours", 3600, 5400), ("minutes", 60, 120), ("seconds", 1, 0))  # name, seconds, from how many on


def training(runs: list[Run], num_tokens: int = 0) -> Drawn:
    """PSNR of training batches with all tokens, and the seconds of training until then, of each run of one
    token count. Of runs that were trained on different images, or sizes of them or of batches, those that
    most have in common; the others are named on the screen. Raises `Lacking` for a run without records.
    """
    lines = chosen([run for run in runs if run.kind != "peer"] or runs, num_tokens)
    cards = [card_id(card_of(run)) for _, run in lines]
    usual = max(cards, key=cards.count)
    drawn, others = [], []
    for (label, run), card in zip(lines, cards, strict=True):
        if card == usual:
            drawn += [{"series": label, "run": str(run.path), "card": card} | point for point in curve(run)]
        else:
            others.append(run.name)
    if others:
        print(f"trained on other images or batches, so not in the figure of training: {', '.join(others)}")
    return drawn


def chosen(runs: list[Run], num_tokens: int) -> list[tuple[str, Run]]:
    """The runs that are drawn, and their lines' names."""
    series = series_of(runs)
    if len(series) == 1:
        label, members = series[0]
        most = [largest(run) for run in members]
        several = len(set(most)) > 1
        return [(tokens(k) if several else label, run) for k, run in zip(most, members, strict=True)]
    count = shared_count(series, num_tokens)
    found = []
    for label, members in series:
        counts = {run: largest(run) for run in members}
        at = [run for run in members if counts[run] == count]
        found += [(label, run) for run in at]
        found += [(f"{label}, {tokens(counts[run])}", run) for run in members if not at]
    return found


def largest(run: Run) -> int:
    if not (records := run.metrics):
        raise Lacking(f"{run.path} has no records of its training, metrics.jsonl")
    return int(max(record["num_tokens"] for record in records))


def card_of(run: Run) -> dict[str, Any]:
    """What the curves of two runs must share."""
    params = run.params
    card = {"measured": "training batches, random crops", "pixels": run.manifest["data"]["train"]}
    return card | {"image_size": params["image_size"], "batch_size": params["batch_size"]}


def curve(run: Run) -> list[dict[str, float]]:
    """`step`, `seconds` of training and `psnr` (dB), means over stretches of the records with all tokens."""
    records, batch = run.metrics, run.params["batch_size"]
    most = max(record["num_tokens"] for record in records)
    speeds = {t["step"]: t["images_per_second"] for t in run.timings}
    seconds, before, points = 0.0, 0.0, []
    for record in records:
        step = record["step"]
        if step in speeds:
            seconds += (step - before) * batch / speeds[step]
        before = step
        if record["num_tokens"] == most:
            points.append((step, seconds, record["psnr"]))
    parts = np.array_split(np.array(points), min(POINTS, len(points)))
    return [dict(zip(("step", "seconds", "psnr"), map(float, part.mean(0)), strict=True)) for part in parts]


def draw_training(drawn: Drawn) -> Figure:
    """One line a run, its seeds in one color."""
    labels = list(dict.fromkeys(d["series"] for d in drawn))
    longest = max(d["seconds"] for d in drawn)
    unit, size = next((name, size) for name, size, least in UNITS if longest >= least)
    ends = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, height_for(len(labels))), layout="constrained")
        axis = figure.subplots()
        for i, label in enumerate(labels):
            color = look(i)["color"]
            for run in dict.fromkeys(d["run"] for d in drawn if d["series"] == label):
                points = [d for d in drawn if (d["series"], d["run"]) == (label, run)]
                x, y = [p["seconds"] / size for p in points], [p["psnr"] for p in points]
                axis.plot(x, y, color=color, linewidth=1, alpha=0.9)
            ends.append(End(label, x[-1], y[-1], color))
        axis.set_xlabel(f"{unit} of training")
        axis.set_ylabel("PSNR of training batches (dB)")
        if len(labels) > 1:
            label_ends(axis, ends)
    return figure
