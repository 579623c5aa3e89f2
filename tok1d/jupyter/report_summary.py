"""What stands on top of a report: what was found, in words, a picture and a table, from the evaluations."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tok1d.config.registry import NUMBERS
from tok1d.evaluation.card import same_card
from tok1d.figures.quality import draw_quality, quality
from tok1d.jupyter.tables import format_cell, grid
from tok1d.runs import Run, RunError

MOST = 5  # rows of the table
COLUMNS = ("run", "num_tokens", "bits", "psnr", "psnr_interval", "ssim", "rfid", "kid")
LINEAR = "linear code of as many bits, PSNR (dB)"


class Summary(NamedTuple):
    findings: list[str]
    runs: list[Path]  # best first
    picture: str  # data URI of the quality of all runs against their token counts, or ""
    keys: list[str]  # the table's columns
    rows: list[list[str]]
    note: str  # below the table


class Found(NamedTuple):
    run: Run
    evaluation: dict[str, Any]
    row: dict[str, Any]  # of its results, the one of highest PSNR


def summary_of(folders: Sequence[Path]) -> Summary | None:
    """What the runs in these folders found, best first; None if none of them was evaluated."""
    found = sorted(filter(None, map(best_row, dict.fromkeys(folders))), key=lambda f: -f.row["psnr"])
    if not found:
        return None
    runs, unlike = [each.run for each in found], ""
    try:
        same_card(runs, "psnr")
    except RunError as error:
        unlike = f"They were not measured alike, so they are not to be compared: {error}."
    rows = [columns(each) for each in found]
    keys, cells, _ = grid(rows[:MOST], "{} ({}\u00a0…\u00a0{})")
    note = f"The best {MOST} of {len(rows)} runs." if len(rows) > MOST else ""
    picture = "" if unlike else quality_picture(runs)
    return Summary(findings(found, unlike), [run.path for run in runs], picture, keys, cells, note)


def best_row(folder: Path) -> Found | None:
    """None for a folder that is no run, was not evaluated, or holds something else than this needs."""
    try:
        evaluation = Run(folder).evaluation
        rows = [row for row in evaluation["results"] if row["psnr"] == row["psnr"]]
        best = max(rows, key=lambda row: row["psnr"])
        _ = (best["num_tokens"], best["bits"], evaluation["card"]["images"], evaluation["card"]["image_size"])
        return Found(Run(folder), evaluation, best)
    except (RunError, OSError, ValueError, KeyError, TypeError):
        return None


def findings(found: list[Found], unlike: str) -> list[str]:
    """Sentences, the most telling first."""
    best = found[0]
    row, card = best.row, best.evaluation["card"]
    said = [
        f"{len(found)} run{'s' * (len(found) > 1)}, measured on {card['images']:,} validation images "
        f"of {card['image_size']} pixels."
    ]
    if unlike:
        return [f"{len(found)} runs. {unlike}"]
    text = f"Best: {best.run.name}, {number('psnr', row)} with {tokens(row)}"
    said.append(f"{text}{between('psnr', row)}.")
    linear = linear_row(best)
    if linear:
        gap = row["psnr"] - linear["psnr"]
        where = f"{abs(gap):.2f} dB {'above' if gap > 0 else 'below'} a linear code of as many bits"
        verdict = "" if gap > 0 else ": it is under-trained, or too small"
        said.append(f"That is {where} ({number('psnr', linear)}){verdict}.")
    for each in found:
        rows = [row for row in each.evaluation["results"] if "psnr" in row]
        few, many = (choose(rows, key=lambda r: r["num_tokens"]) for choose in (min, max))
        if few is not many:
            said.append(f"One tokenizer for all counts, {each.run.name}, has {number('psnr', few)} with "
                        f"{tokens(few)} and {number('psnr', many)} with {tokens(many)}.")  # fmt: skip
            break
    for metric in ("rfid", "kid"):
        measured = [(r[metric], each.run.name, r) for each in found for r in each.evaluation["results"]
                    if metric in r]  # fmt: skip
        if measured:
            _, name, r = min(measured, key=lambda item: item[0])
            said.append(f"Lowest {NUMBERS[metric].label}: {name}, {format_cell(metric, r[metric])} "
                        f"with {tokens(r)}.")  # fmt: skip
            break
    return said


def linear_row(found: Found) -> dict[str, Any] | None:
    count = found.row["num_tokens"]
    rows = found.evaluation.get("linear_code") or []
    return next((row for row in rows if row["num_tokens"] == count and "psnr" in row), None)


def columns(found: Found) -> dict[str, Any]:
    row = {"run": found.run.name} | {key: found.row[key] for key in COLUMNS if key in found.row}
    linear = linear_row(found)
    return row | ({LINEAR: f"{linear['psnr']:.2f}"} if linear else {})


def tokens(row: dict[str, Any]) -> str:
    count = row["num_tokens"]
    return f"{count} token{'s' * (count != 1)} ({row['bits']:,.0f} bits)"


def number(name: str, row: dict[str, Any]) -> str:
    return f"{format_cell(name, row[name])} dB"


def between(name: str, row: dict[str, Any]) -> str:
    """For other images of the same kind, 19 times out of 20."""
    if not (interval := row.get(f"{name}_interval")):
        return ""
    low, high = (format_cell(name, value) for value in interval)
    return f"; other images of the kind would give {low} to {high}"


def quality_picture(runs: list[Run]) -> str:
    """PSNR against token counts, of more than one point."""
    drawn = quality(runs)
    if len(drawn) < 2:
        return ""
    buffer = io.BytesIO()
    draw_quality(drawn).savefig(buffer, format="png", dpi=200)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
