"""The per-image table of an evaluation, `eval.parquet`: a row for each image and token count.

    name, image, num_tokens, and a column for each number: psnr, ssim … of a single image, and of distances
    between sets (rfid, kid, recall …) each image's part, as `tok1d.evaluation.metrics.sets` has it

The mean of a column is the number in `eval.json`. `inception_shift` and `dinov2_shift` are how far an image's
features moved (Euclidean): what a Fréchet distance sums up. `worst` leads from a number to the images behind
it. The file's metadata has what some numbers are in random subsets of the images.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tok1d.config.registry import image_column
from tok1d.runs import Run, RunError
from tok1d.system.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 8192  # rows
KEYS = ("name", "image", "num_tokens")
SUBSETS = b"subsets"  # of the file's metadata


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


def complete_table(
    path: Path, columns: dict[int | None, dict[str, np.ndarray]], subsets: dict[str, dict[str, list[float]]]
) -> None:
    """Give a finished table more numbers: `columns[num_tokens][name]` [N] by image, the same names for all.

    `subsets["16"][name]`, for each token count, is no number of an image: it goes to the file's metadata.
    """
    if not columns and not subsets:
        return
    names = list(next(iter(columns.values()), ()))
    with replacing(path) as temporary, pq.ParquetFile(path) as table:
        fields = [pa.field(name, pa.float64()) for name in names]
        schema = pa.schema([*table.schema_arrow, *fields], {SUBSETS: json.dumps(subsets)})
        with pq.ParquetWriter(temporary, schema) as writer:
            for group in range(table.num_row_groups):
                rows = table.read_row_group(group)
                places = list(zip(rows["num_tokens"].to_pylist(), rows["image"].to_pylist(), strict=True))
                for name in names:
                    values = [columns[count][name][image] for count, image in places]
                    rows = rows.append_column(name, pa.array(values, pa.float64()))
                writer.write_table(rows.replace_schema_metadata(schema.metadata))


def table_of(run: Run) -> Path:
    """The table that belongs to a run's `eval.json`. Raises `RunError` if there is none, or that of another
    evaluation, as when this one was killed while it was written.
    """
    path = run.evaluated / "eval.parquet"
    wanted = run.evaluation.get("table_sha256")  # evaluations of before have none
    if not path.is_file() or (wanted and file_sha256(path) != wanted):
        raise RunError(
            f"{path} is not of the evaluation in eval.json: measure it again with '{run.to_evaluate}'"
        )
    return path


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_table(path: Path, num_tokens: int | None, columns: list[str]) -> pd.DataFrame:
    """The rows of one token count, by image."""
    count = pc.field("num_tokens")
    at = count.is_null() if num_tokens is None else count == num_tokens
    rows = pq.read_table(path, columns=[*KEYS, *columns], filters=at).to_pandas()
    return rows.sort_values("image", ignore_index=True)


def columns_of(path: Path) -> list[str]:
    """The numbers that a table has for each image."""
    return [name for name in pq.read_schema(path).names if name not in KEYS]


def subsets_of(path: Path, num_tokens: int | None) -> dict[str, np.ndarray]:
    """Numbers in random subsets of the images, by name."""
    found = json.loads((pq.read_schema(path).metadata or {}).get(SUBSETS, b"{}"))
    return {name: np.array(values) for name, values in found.get(str(num_tokens), {}).items()}


class Cases(NamedTuple):
    rows: pd.DataFrame  # name, image and the number of each, the worst first
    originals: Tensor  # uint8 [count, 3, H, W]
    reconstructions: Tensor  # the same


def worst_rows(path: Path, number: str, num_tokens: int | None, count: int = 10) -> pd.DataFrame:
    """The rows of the images behind a number where it is worst."""
    column, higher_is_better = image_column(number)
    rows = read_table(path, num_tokens, [column])
    return rows.sort_values(column, ascending=higher_is_better, kind="stable").head(count)
