"""The per-image table of an evaluation, `eval.parquet`: a row for each image and token count.

    name, image, num_tokens, and a column for each number that a single image has: psnr, ssim …

`inception_shift` and `dinov2_shift` are how far an image's features moved (Euclidean): what a Fréchet
distance sums up. `worst` leads from a number in `eval.json` to the images behind it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from tok1d.metrics import NUMBERS

GROUP = 8192  # rows
KEYS = ("name", "image", "num_tokens")


class ImageTable:
    """Rows are appended batch by batch to a file, in groups of some thousands; all have the same columns."""

    def __init__(self, path: Path):
        self.path = path
        self.waiting: list[pa.Table] = []
        self.writer: pq.ParquetWriter | None = None

    def add(self, names: list[str], first: int, num_tokens: int | None, columns: dict[str, Tensor]) -> None:
        """`first` is the index of the first of these images, `columns` their numbers, [B] each."""
        B = len(names)
        rows = pa.table({
            "name": pa.array([name.encode(errors="replace").decode() for name in names], pa.string()),
            "image": pa.array(range(first, first + B), pa.int64()),
            "num_tokens": pa.array([num_tokens] * B, pa.int32()),
            **{name: pa.array(column.cpu().numpy()) for name, column in columns.items()},
        })  # fmt: skip
        self.waiting.append(rows)
        if sum(map(len, self.waiting)) >= GROUP:
            self.flush()

    def flush(self) -> None:
        rows = pa.concat_tables(self.waiting)
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, rows.schema)
        self.writer.write_table(rows)
        self.waiting = []

    def close(self) -> None:
        if self.waiting:
            self.flush()
        if self.writer is not None:
            self.writer.close()


def read_table(path: Path, num_tokens: int | None, columns: list[str]) -> pd.DataFrame:
    """The rows of one token count, by image."""
    rows = pq.read_table(path, columns=[*KEYS, *columns]).to_pandas()
    at = rows["num_tokens"].isna() if num_tokens is None else rows["num_tokens"] == num_tokens
    return rows[at].sort_values("image", ignore_index=True)


def columns_of(path: Path) -> list[str]:
    """The numbers that a table has for each image."""
    return [name for name in pq.read_schema(path).names if name not in KEYS]


class Cases(NamedTuple):
    rows: pd.DataFrame  # name, image and the number of each, the worst first
    originals: Tensor  # uint8 [count, 3, H, W]
    reconstructions: Tensor  # the same


def worst_rows(path: Path, number: str, num_tokens: int | None, count: int = 10) -> pd.DataFrame:
    """The rows of the images behind a number where it is worst."""
    metric = NUMBERS[number]
    rows = read_table(path, num_tokens, [metric.case])
    return rows.sort_values(metric.case, ascending=metric.bad == "low", kind="stable").head(count)
