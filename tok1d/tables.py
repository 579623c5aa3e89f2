"""Small tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from IPython.display import Markdown

NAMES = {
    "num_tokens": "tokens", "bits": "bits / image", "psnr": "PSNR (dB)", "ssim": "SSIM",
    "code_usage": "codes used", "code_perplexity": "code perplexity",
}  # fmt: skip
FORMATS = {
    "psnr": "{:.2f}",
    "ssim": "{:.3f}",
    "bits": "{:.0f}",
    "code_usage": "{:.1%}",
    "code_perplexity": "{:,.0f}",
}


def table(rows: Iterable[dict[str, Any]]) -> Markdown:
    """Rows as a table; known keys get their name, unit and precision, and what a row has not stays empty."""
    rows = list(rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        [NAMES.get(key, key.replace("_", " ")) for key in keys],
        ["---:" if all(_is_number(row[k]) for row in rows if k in row) else "---" for k in keys],
    ]
    lines += [[FORMATS.get(key, "{}").format(row[key]) if key in row else "" for key in keys] for row in rows]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def facts(values: dict[str, Any]) -> Markdown:
    """Names and values, one a row."""
    return Markdown(
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())])
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
