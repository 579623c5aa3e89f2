"""What a parameter's value may be: numbers, words and lists as YAML and papermill write them."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tok1d.config.registry import (
    QUANTIZERS,
    known_diagnosis,
    known_init,
    known_like,
    known_metric,
    known_number,
)


class ConfigError(ValueError):
    """A parameter that cannot be used; the message is one sentence that says what to type instead."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence, without the stack of calls that led to it."""
        return [f"ConfigError: {self}"]


def to_number(value: Any) -> Any:
    """YAML reads `1e-4` as text and `true` as a bool: turn the first into a number, refuse the second."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _word(value: Any) -> Any:
    """YAML reads `run: 64` as a number, `run: 2025-01-31` as a date and a blank as null: all mean text."""
    if isinstance(value, int | datetime.date | Path) and not isinstance(value, bool):
        return str(value)
    return "" if value is None else value


def _tuple(value: Any) -> Any:
    """One value or a comma-separated text is a list too: `token_counts=8` and `-p token_counts=1,8,64`."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value if isinstance(value, list | tuple) else () if value is None else (value,)


BESIDE_RUNS = {  # in the folder of a sweep
    "figures", "report.html", "sweep.json", "driver.txt", "results.csv", "results.parquet", "failed.json",
    "sweep_done.json", "ablation.ipynb", "ablation.failed.ipynb", "ablation.log", "figures.ipynb",
    "figures.failed.ipynb", "figures.log", "explore.ipynb", "explore.failed.ipynb", "explore.log",
    "peers.ipynb", "peers.failed.ipynb", "peers.log",
}  # fmt: skip


def _run_name(value: str) -> str:
    if value in BESIDE_RUNS:
        raise ValueError(f"must not be {value}, which a sweep writes beside its runs")
    return value


Int = Annotated[int, BeforeValidator(to_number)]
Float = Annotated[float, BeforeValidator(to_number)]
Text = Annotated[str, BeforeValidator(_word)]
FolderName = Annotated[Text, Field(pattern=r"^\w[\w.+-]{0,99}$")]
RunName = Annotated[FolderName, AfterValidator(_run_name)]
Ints = Annotated[tuple[Int, ...], BeforeValidator(_tuple)]
Counts = Annotated[tuple[Annotated[Int, Field(ge=1)], ...], BeforeValidator(_tuple)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_tuple)]
Diagnoses = Annotated[tuple[Annotated[Text, AfterValidator(known_diagnosis)], ...], BeforeValidator(_tuple)]
MetricNames = Annotated[tuple[Annotated[Text, AfterValidator(known_metric)], ...], BeforeValidator(_tuple)]
NumberName = Annotated[Text, AfterValidator(known_number)]
YamlNo = BeforeValidator(lambda value: "no" if value is False else value)  # YAML reads a bare no as false
Precision = Annotated[Literal["auto", "no", "bf16"], YamlNo]

Size = Literal["nano", "T", "S", "B", "L"]
if TYPE_CHECKING:
    QuantizerName = str
else:  # the same for pydantic, which then can name all of them
    QuantizerName = Literal[tuple(QUANTIZERS)]
Init = Annotated[Text, AfterValidator(known_init)]
Like = Annotated[Text, AfterValidator(known_like)]


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
