"""Small tables for notebooks and the terminal."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from IPython.display import Markdown

from tok1d.config.registry import NUMBERS
from tok1d.runs import Run

NAMES = {
    "num_tokens": "tokens", "bits": "bits / image", "encode_images_per_s": "encoded / s",
    "decode_images_per_s": "decoded / s",
}  # fmt: skip
FORMATS = {
    "bits": "{:,.0f}", "code_usage": "{:.1%}", "encode_images_per_s": "{:,.0f}",
    "decode_images_per_s": "{:,.0f}",
}  # fmt: skip


def show_table(rows: Iterable[dict[str, Any]]) -> Markdown:
    """Rows as a table; known keys get their name, unit and precision, and what a row has not stays empty.

    An interval follows its number: 21.43 (21.1 … 21.8).
    """
    keys, cells, right = grid(rows)
    ruler = ["---:" if r else "---" for r in right]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in [keys, ruler, *cells]))


def table_lines(rows: Iterable[dict[str, Any]], width: int = 0) -> list[str]:
    """The same for a terminal; one of `width` characters gets too many columns in several tables, one below
    the other, each with the first column.
    """
    keys, cells, right = grid(rows)
    widths = [max(map(len, column)) for column in zip(keys, *cells, strict=True)]
    pads = [str.rjust if r else str.ljust for r in right]
    padded = [[pad(c, w) for pad, c, w in zip(pads, row, widths, strict=True)] for row in [keys, *cells]]
    parts: list[list[int]] = [[]]
    for column in range(len(keys)):
        together = [*parts[-1], column]
        if width and len(together) > 2 and sum(2 + widths[i] for i in together) > width:
            parts.append([0])
        parts[-1].append(column)
    chosen = [[row[i] for i in part] for part in parts for row in padded]
    return [f"  {'  '.join(row)}".rstrip().replace("\u00a0", " ") for row in chosen]


def grid(rows: Iterable[dict[str, Any]]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Column names, the cells of each row, and which columns hold numbers."""
    rows = list(rows)
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if not key.endswith("_interval")]
    right = [all(_is_number(row[key]) for row in rows if key in row) for key in keys]
    return [name_of(key) for key in keys], [[cell(row, key) for key in keys] for row in rows], right


def name_of(key: str) -> str:
    return NUMBERS[key].label if key in NUMBERS else NAMES.get(key, key.replace("_", " "))


def cell(row: dict[str, Any], key: str) -> str:
    if row.get(key) is None:
        return ""
    text = format_cell(key, row[key])
    interval = row.get(f"{key}_interval")
    if not interval:
        return text
    return f"{text} ({format_cell(key, interval[0])} … {format_cell(key, interval[1])})".replace(
        " ", "\u00a0"
    )


def format_cell(key: str, value: Any) -> str:
    """A number with the precision that it deserves."""
    if key in FORMATS or key not in NUMBERS:
        return FORMATS.get(key, "{}").format(value)
    return f"{value * NUMBERS[key].scale:,.{NUMBERS[key].digits}f}"


def key_values(values: dict[str, Any]) -> Markdown:
    """Names and values, one a row; what is below a name is joined to it: metrics.rfid.weights_sha256."""
    rows = [f"| {name} | {value} |" for name, value in flat(values).items()]
    return Markdown("\n".join(["| | |", "|---|---|", *rows]))


def flat(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        below = flat(value) if isinstance(value, dict) else {}
        found |= {f"{name}.{key}": v for key, v in below.items()} or {name: value}
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """A loading report in short, for `key_values`."""
    counts = Counter(row["status"] for row in report["tensors"])
    keys = ("init_from", "encoder_init", "network", "source", "sha256")
    rows = {key: report[key] for key in keys if key in report}
    if "changes" in report:
        rows["changes"] = "<br>".join(report["changes"]) or "none"
    other = ("new", "dropped") if "init_from" in report else ("dropped", "missing", "unexpected")
    rows |= {f"tensors {status}": counts[status] for status in ("loaded", "resampled", *other)}
    for name, value in report.get("cosine", {}).items():
        rows[f"cosine with timm's own forward pass, {name.replace('_', ' ')}"] = f"{value:.6f}"
    return rows | {
        "fair random baseline": report["fair_pair"],
        "plain random differs in": "<br>".join(report["differences_from_plain_random"]) or "nothing",
    }


def explanations(report: dict[str, Any]) -> list[dict[str, str]]:
    """Rows, for `tables.table`, of what was not simply copied; alike tensors together."""
    groups = Counter(
        (re.sub(r"\.\d+\.", ".*.", row["name"]), row["status"], row["reason"])
        for row in report["tensors"]
        if row["reason"]
    )
    rows = [dict(tensor=n, how_many=str(count), status=s, reason=r) for (n, s, r), count in groups.items()]
    every = "every tensor was copied as it is" if report["tensors"] else "all weights are random"
    return rows or [dict(tensor="", how_many="", status="", reason=every)]


def learning(run: Run) -> list[dict[str, Any]]:
    """Rows, for `tables.table`, of which parameters of a trained run learned."""
    path = run / "load_report.json"
    rows = json.loads(path.read_text()).get("parameters") if path.exists() else None
    return rows or [{"part": "trained before this was recorded"}]
