"""What the files of a run folder hold, checked when they are read: people edit them, and disks cut them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict


class RunError(RuntimeError):
    """A run folder that cannot be used as asked; the message is one sentence that says what to do."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows, instead of the stack of calls."""
        return [f"{type(self).__name__}: {self}"]


LAX = ConfigDict(extra="allow")


def _has_count(row: dict[str, Any]) -> dict[str, Any]:
    if "num_tokens" not in row or not isinstance(row["num_tokens"], int | None):
        raise ValueError("num_tokens is no number")
    return row


# Of one token count; intervals are lists
Numbers = Annotated[dict[str, int | float | list[Any] | None], AfterValidator(_has_count)]


class Evaluation(TypedDict):
    """eval.json, as `tok1d.evaluation.evaluate` gives it."""

    __pydantic_config__ = LAX  # type: ignore[misc]
    card: dict[str, Any]
    results: list[Numbers]
    linear_code: NotRequired[list[Numbers] | None]
    data: NotRequired[str]
    asked: NotRequired[dict[str, Any]]
    table_sha256: NotRequired[str]
    warnings: NotRequired[list[str]]


class Part(TypedDict):
    """How many tensors of a part of a model learn."""

    __pydantic_config__ = LAX  # type: ignore[misc]
    part: str


class LoadReport(TypedDict):
    """load_report.json"""

    __pydantic_config__ = LAX  # type: ignore[misc]
    parameters: NotRequired[list[Part]]


class Manifest(TypedDict):
    """manifest.json"""

    __pydantic_config__ = LAX  # type: ignore[misc]
    data: dict[str, str]


def read_json(path: Path, kind: Any, remedy: str) -> Any:
    """What a file of JSON holds, if that is of a `kind`: people edit files, and disks cut them. Raises
    `RunError`, which ends with the `remedy`.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise RunError(f"{path} is damaged ({place}: {first['msg'].lower()}): {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({str(error)[:100]}): {remedy}") from None
    return value


def records_in(text: str) -> list[dict[str, float]]:
    """The records of a file of JSON lines: numbers by name, `step` among them. A line that is none is left
    out: it was being written when its process was killed, or is damaged.
    """
    found = []
    for line in text.split("\n"):
        with suppress(ValueError):
            record = json.loads(line)
            numbers = isinstance(record, dict) and all(isinstance(v, int | float) for v in record.values())
            if numbers and "step" in record:
                found.append(record)
    return found
