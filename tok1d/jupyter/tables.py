"""Small tables for notebooks and the terminal.

Names in them are other people's: of images, folders, runs. Whatever becomes Markdown goes through
`markdown_text`, so that it is read, and neither laid out nor executed.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from IPython.display import Markdown
from rich.console import Console, RenderableType
from rich.table import Table

from tok1d.config.registry import NUMBERS
from tok1d.evaluation.card import code_ceiling
from tok1d.runs import Run

NAMES = {
    "num_tokens": "tokens", "bits": "bits / image", "encode_images_per_s": "encoded / s",
    "decode_images_per_s": "decoded / s", "code_ceiling": "at most",
    "gfid": "gFID", "gfid_infinity": "gFID∞",
}  # fmt: skip
FORMATS = {
    "bits": "{:,.0f}", "code_usage": "{:.1%}", "encode_images_per_s": "{:,.0f}",
    "decode_images_per_s": "{:,.0f}", "code_ceiling": "{:,.0f}", "gfid": "{:.2f}", "gfid_infinity": "{:.2f}",
    "nats / token": "{:.3f}",
}  # fmt: skip


ENDLESS = 100_000  # characters of a line


def show_table(rows: Iterable[dict[str, Any]]) -> Markdown | None:
    """Rows as a table; known keys get their name, unit and precision, and what a row has not stays empty.

    An interval follows its number: 21.43 (21.1 … 21.8). Without rows there is nothing to show: None.
    """
    rows = list(rows)
    if not rows:
        return None
    keys, cells, right = grid(rows, "{} ({}\u00a0…\u00a0{})")
    ruler = ["---:" if r else "---" for r in right]
    keys, *cells = ([markdown_text(text) for text in line] for line in [keys, *cells])
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in [keys, ruler, *cells]))


UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # or turn the text around
LAYS_OUT = re.compile(r"[&<>\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")  # in Markdown, or in HTML inside of it


def visible(text: str) -> str:
    """On one line, with a mark for each character that would steer a terminal or a browser."""
    return UNSEEN.sub("�", re.sub(r"[\t\r\n]+", " ", text))


def markdown_text(text: str) -> str:
    """Markdown that is read as this text, also in a cell of a table: characters that would do anything else
    are written as HTML entities.
    """
    return LAYS_OUT.sub(lambda found: f"&#{ord(found[0])};", visible(text))


def html_text(text: str) -> str:
    """HTML that is read as this text, also in an attribute."""
    return html.escape(visible(text))


def print_table(rows: Iterable[dict[str, Any]]) -> None:
    """The same for people at a terminal: intervals below their numbers, and a table that is wider than it in
    several, one below the other, each with the first column. Elsewhere a line a row, however long.
    """
    console = terminal()
    keys, cells, right = grid(rows, "{}\n{} … {}" if console.is_terminal else "{} ({} … {})")
    lines = [
        [line for text in column for line in text.split("\n")] for column in zip(keys, *cells, strict=True)
    ]
    widths = [2 + max(map(len, each)) for each in lines]
    parts: list[list[int]] = [[]]
    for column in range(len(keys)):
        if len(parts[-1]) > 1 and sum(widths[i] for i in [*parts[-1], column]) > console.width:
            parts.append([0])
        parts[-1].append(column)
    for part in parts:
        table = plain_table()
        for i in part:
            table.add_column(keys[i], justify="right" if right[i] else "left", no_wrap=True)
        for row in cells:
            table.add_row(*(row[i] for i in part))
        print(as_text(table, console), flush=True)


def plain_table() -> Table:
    """A table of `rich` without lines; its header is bold in a terminal."""
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)


def terminal() -> Console:
    """Where tables are printed: as wide as the terminal, or without an end where the output is none."""
    console = Console(markup=False, emoji=False, highlight=False, force_jupyter=False)
    if not console.is_terminal:
        console.width = ENDLESS
    return console


def as_text(renderable: RenderableType, console: Console) -> str:
    """What `rich` prints there, without blanks at the end of lines."""
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def grid(rows: Iterable[dict[str, Any]], interval: str) -> tuple[list[str], list[list[str]], list[bool]]:
    """Column names, the cells of each row, and which columns hold numbers; `interval` is how a number is
    written with its interval.
    """
    rows = list(rows)
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if not key.endswith("_interval")]
    right = [all(_is_number(row[key]) for row in rows if key in row) for key in keys]
    return (
        [visible(name_of(key)) for key in keys],
        [[cell(row, key, interval) for key in keys] for row in rows],
        right,
    )


def name_of(key: str) -> str:
    return NUMBERS[key].label if key in NUMBERS else NAMES.get(key, key.replace("_", " "))


def cell(row: dict[str, Any], key: str, template: str) -> str:
    if row.get(key) is None:
        return ""
    text = format_cell(key, row[key])
    interval = row.get(f"{key}_interval")
    if not interval:
        return text
    return template.format(text, format_cell(key, interval[0]), format_cell(key, interval[1]))


def format_cell(key: str, value: Any) -> str:
    """A number with the precision that it deserves."""
    if key in FORMATS or key not in NUMBERS:
        return visible(FORMATS.get(key, "{}").format(value))
    return f"{value * NUMBERS[key].scale:,.{NUMBERS[key].digits}f}"


def key_values(values: dict[str, Any], fold: str = "") -> Markdown:
    """Names and values, one a row; what is below a name is joined to it: metrics.rfid.weights_sha256. With
    `fold`, the line to click, they are shown when they are asked for.
    """
    rows = [
        f"| {markdown_text(name)} | {markdown_text(str(value))} |" for name, value in flat(values).items()
    ]
    table = "\n".join(["| what | value |", "|---|---|", *rows])
    if fold:
        table = f"<details><summary>{markdown_text(fold)}</summary>\n\n{table}\n\n</details>"
    return Markdown(table)


def sentence(text: str) -> Markdown:
    return Markdown(markdown_text(text))


def results(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows, for `show_table`, of an evaluation; behind the perplexity of codes the most that it could be."""
    rows = []
    for row in evaluation["results"]:
        ceiling = row.get("code_perplexity") and {"code_ceiling": code_ceiling(evaluation["card"], row)}
        speeds = {key: row[key] for key in row if key.endswith("_images_per_s")}
        rows.append({k: row[k] for k in row if k not in speeds} | (ceiling or {}) | speeds)
    return rows


def generated(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows, for `show_table`, of generated images, the mean over seeds if there are several, and of as many
    training images.
    """
    shown = evaluation.get("over_seeds") or evaluation["results"]
    real = [
        {name: row[name] for name in row if name != "num_tokens"} for row in evaluation.get("training", ())
    ]
    return [{"images": "generated"} | row for row in shown] + [
        {"images": "training images"} | row for row in real
    ]


def measured(evaluation: dict[str, Any]) -> Markdown:
    """How an evaluation was made: two of them are compared only if these facts agree."""
    card = evaluation["card"]
    size, images = card.get("image_size", "?"), card.get("images", 0)
    return key_values(
        card, f"How it was measured: {images:,} images of {size} pixels, and the rest of the card"
    )


def kept(run: Run) -> Markdown:
    """What a run folder holds, folders as a whole; what is hidden is of no use to a reader."""
    found = {}
    for path in sorted(run.path.iterdir()):
        if not path.name.startswith("."):
            files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
            size = f"{sum(file.stat().st_size for file in files):,} bytes"
            count = f" in {len(files)} file{'s' * (len(files) != 1)}" if path.is_dir() else ""
            found[path.name + "/" * path.is_dir()] = size + count
    return key_values(found)


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
    rows = {key: report[key] for key in keys if report.get(key)}
    if "changes" in report:
        rows["changes"] = "; ".join(report["changes"]) or "none"
    other = ("new", "dropped") if "init_from" in report else ("dropped", "missing", "unexpected")
    statuses = ("loaded", "resampled", *other)
    rows |= {f"tensors {status}": counts[status] for status in statuses if counts[status]}
    for name, value in report.get("cosine", {}).items():
        rows[f"cosine with timm's own forward pass, {name.replace('_', ' ')}"] = f"{value:.6f}"
    return rows | {
        "fair random baseline": report["fair_pair"],
        "plain random differs in": "; ".join(report["differences_from_plain_random"]) or "nothing",
    }


def explanations(report: dict[str, Any]) -> Markdown:
    """What was not simply copied, alike tensors in one row; of a random start that is a sentence."""
    groups = Counter(
        (re.sub(r"\.\d+\.", ".*.", row["name"]), row["status"], row["reason"])
        for row in report["tensors"]
        if row["reason"]
    )
    rows = [dict(tensor=n, how_many=str(count), status=s, reason=r) for (n, s, r), count in groups.items()]
    every = "Every tensor was copied as it is." if report["tensors"] else "All weights start at random."
    return show_table(rows) or sentence(every)


def starts(report: dict[str, Any]) -> Markdown:
    """A loading report in short; folded if there is nothing to account for."""
    fold = "" if report["tensors"] else "Which random start, and which others are fair beside it"
    return key_values(summary(report), fold)


def learning(run: Run) -> list[dict[str, Any]]:
    """Rows, for `show_table`, of which parameters of a trained run learned."""
    return run.load_report.get("parameters") or [{"part": "trained before this was recorded"}]
