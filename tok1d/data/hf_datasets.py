"""Hugging Face data sets: `hf:owner/name`, streamed from the hub once, or one that lies on a disk.

| `data:`                         | what it is                                                             |
|---------------------------------|------------------------------------------------------------------------|
| `hf:owner/name`                 | the split `train`, its only column of images                           |
| `hf:owner/name:test`            | another split                                                          |
| `hf:owner/name:test:photo`      | another column                                                         |
| `hf:owner/name/subset@v1:test`  | a subset; a revision (branch, tag or commit)                           |
| `hf:path/to/folder:test`        | what `save_to_disk` wrote, or a folder of parquet files                |

What the hub streams, up to `max_images`, is kept as its files are, in one shard of the cache folder, and is
never asked for again: another image size costs no download, and a machine without internet can use it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from PIL import Image

from tok1d.config.fields import ConfigError
from tok1d.data.decode import SUFFIXES, Picture, Unreadable, decode
from tok1d.data.folders import has_images, look_into, tables_of_images
from tok1d.data.left_out import say
from tok1d.data.shards import Reader, open_shards
from tok1d.system.progress import counted

PREFIX = "hf:"
SPLITS = {"validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"} | {
    word: "test" for word in ("test", "testing", "eval", "evaluation")
}  # words in the names of files


class Name(NamedTuple):
    """What `hf:…` says."""

    where: str
    subset: str | None
    revision: str | None
    split: str
    column: str


def parse_name(text: str) -> Name:
    """`hf:owner/name/subset@revision:split:column`. Raises `ConfigError`."""
    where, split, column = (*text.removeprefix(PREFIX).split(":"), "", "")[:3]
    split = split or "train"
    if where and Path(where).expanduser().exists():
        return Name(str(Path(where).expanduser()), None, None, split, column)
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/([\w.-]+))?(?:@([\w./-]+))?", where)
    if not match:
        raise ConfigError(f"{text} is no data set's name: type hf:owner/name, or hf:owner/name:split:column")
    return Name(match[1], match[2], match[3], split, column)


def saved_in(path: Path) -> bool:
    """Whether `save_to_disk` wrote a folder; other programs have files of the same names."""
    try:
        if (path / "dataset_dict.json").is_file():
            splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            return any(saved_in(path / split) for split in splits)
        if not (path / "state.json").is_file():
            return False
        files = json.loads((path / "state.json").read_text(encoding="utf-8"))["_data_files"]
        return any((path / file["filename"]).is_file() for file in files)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def rows_below(path: Path, tables: list[Path]) -> int:
    """Rows with images of a folder's data set, saved there or in these parquet files."""
    if not saved_in(path):
        return tables_of_images(tables)[1]
    import pyarrow

    rows = 0
    for file in path.rglob("*.arrow"):
        with suppress(OSError, ValueError), pyarrow.memory_map(str(file)) as source:
            reader = pyarrow.ipc.open_stream(source)
            rows += sum(batch.num_rows for batch in reader) if has_images(reader.schema) else 0
    return rows


def open_dataset(text: str, limit: int, cache: Path) -> Reader:
    """Names, a way to read each, and its stamp; up to `limit` images of the hub (0: all)."""
    name = parse_name(text)
    if Path(name.where).exists():
        return _local(name, text, cache)
    key = hashlib.sha256(f"{name} {limit}".encode()).hexdigest()[:16]
    shard = cache / "hub" / f"{name.where.replace('/', '--')}-{name.split}-{key}.tar"
    if not shard.exists():
        _download(name, text, limit, shard)
    return open_shards([shard], text, cache)


def _library(text: str) -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"{text} needs the library datasets: type pip install datasets") from None
    return datasets


def _load(text: str, name: Name, **options: Any) -> Any:
    """The split, with its images left as files: rows of {column: {bytes, path}}, and the column's name."""
    datasets = _library(text)
    try:
        if saved_in(Path(name.where)):
            data = datasets.load_from_disk(name.where)
        else:
            if Path(name.where).is_dir():
                options["data_files"] = _tables_among_images(Path(name.where))
            data = datasets.load_dataset(name.where, name.subset, revision=name.revision, **options)
    except Exception as error:  # of the library, the hub, the network: whatever it is, it is said
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConfigError(f"{text} cannot be opened ({why}): check the name, or type data=FOLDER") from None
    if isinstance(data, dict):
        if name.split not in data:
            raise ConfigError(f"{text} has no split {name.split}: its splits are {', '.join(data)}")
        if not options.get("streaming") and len(data) > 1:
            others = {split: len(rows) for split, rows in data.items() if split != name.split}
            rest = f"{sum(map(int, others.values()))} rows of the splits {', '.join(others)}"
            say(f"left out of {text}: {rest}: type hf:{name.where}:SPLIT to read one")
        data = data[name.split]
    column = _column(data, text, name.column)
    return data.select_columns([column]).cast_column(column, datasets.Image(decode=False)), column


def _tables_among_images(folder: Path) -> dict[str, list[str]] | None:
    """Its parquet files by split, if there are images beside them, which `datasets` may read instead; or
    None.
    """
    found = look_into(folder)
    tables, _ = tables_of_images(found.tables if found.pictures or found.shards else [])
    splits: dict[str, list[str]] = {}
    for table in tables:
        words = re.split(r"[\W\d_]+", str(table.relative_to(folder)).lower())
        split = next((split for word, split in SPLITS.items() if word in words), "train")
        splits.setdefault(split, []).append(str(table))
    return splits or None


def _column(data: Any, text: str, wanted: str) -> str:
    features = data.features or data._resolve_features().features
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    images = images or [name for name, feature in features.items() if {"bytes", "path"} <= _parts(feature)]
    if wanted in features:
        return wanted
    if wanted or len(images) != 1:
        has = f"columns of images are {', '.join(images)}" if images else "there is no column of images"
        asked = f"{text} has no column {wanted}" if wanted else f"{text} needs a column"
        raise ConfigError(f"{asked}, {has}: type hf:NAME:SPLIT:COLUMN with one of {', '.join(features)}")
    return images[0]


def _parts(feature: Any) -> set[str]:
    return set(feature) if isinstance(feature, dict) else set()


def _download(name: Name, text: str, limit: int, shard: Path) -> None:
    """Stream a split's images, up to `limit`, into a tar file; it appears only when it is complete."""
    rows, column = _load(text, name, streaming=True)
    rows = rows.take(limit) if limit else rows
    shard.parent.mkdir(parents=True, exist_ok=True)
    temporary = shard.with_name(f"{shard.name}.{os.getpid()}")
    try:
        streamed = counted(rows, f"streaming {text}", limit, "images")
        write_shard((row[column] for row in streamed), temporary)
        temporary.rename(shard)
    except Exception as error:
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConfigError(f"{text} was cut off ({why}): try again, or type a smaller max_images") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_shard(files: Iterable[dict[str, Any]], path: Path) -> None:
    """Images as {bytes, path} -> a tar file of 00000000.jpg, 00000001.png …"""
    with tarfile.open(path, "w") as tar:
        for i, file in enumerate(files):
            raw = _bytes(file)
            member = tarfile.TarInfo(f"{i:08}.{_extension(raw)}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))


def _bytes(file: dict[str, Any]) -> bytes:
    if file["bytes"] is not None:
        return file["bytes"]
    import fsspec

    with fsspec.open(file["path"], "rb") as opened:
        return opened.read()


def _extension(raw: bytes) -> str:
    try:
        with Image.open(io.BytesIO(raw)) as image:
            kind = str(image.format).lower()
            kind = {"jpeg": "jpg", "mpo": "jpg", "jpeg2000": "jp2"}.get(kind, kind)
            return kind if f".{kind}" in SUFFIXES else "jpg"  # which decodes as what it is
    except Exception:
        return "jpg"  # decoding will say what is wrong with it


def _local(name: Name, text: str, cache: Path) -> Reader:
    """A data set on the disk, by row."""
    data, column = _load(text, name, cache_dir=str(cache / "hub"))
    stamps = " ".join(_file_stamp(file["filename"]) for file in data.cache_files)

    def read(row: str) -> tuple[Picture, str]:
        try:
            return decode(_bytes(data[int(row)][column]))
        except OSError as error:
            raise Unreadable((error.strerror or str(error)).lower()) from None

    names = [f"{i:08}" for i in range(len(data))]
    return Reader(names, read, lambda row: f"{stamps} {row}", lambda row: f"{stamps} {row}")


def _file_stamp(path: str) -> str:
    stat = os.stat(path)
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"
