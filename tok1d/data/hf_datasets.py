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
import os
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from tok1d.config.fields import ConfigError
from tok1d.data.decode import Picture, Unreadable, decode
from tok1d.data.shards import Reader, open_shards

PREFIX = "hf:"


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
    """Whether a folder holds a data set: from `save_to_disk`, or parquet files."""
    return _saved_to_disk(path) or any(
        next(folder.glob("*.parquet"), None) for folder in (path, path / "data")
    )


def _saved_to_disk(path: Path) -> bool:
    return any((path / name).exists() for name in ("dataset_dict.json", "state.json"))


def open_dataset(text: str, limit: int, cache: Path) -> Reader:
    """Names, a way to read each, and its stamp; up to `limit` images of the hub (0: all)."""
    name = parse_name(text)
    if Path(name.where).exists():
        return _local(name, text, cache)
    key = hashlib.sha256(f"{name} {limit}".encode()).hexdigest()[:16]
    shard = cache / "hub" / f"{name.where.replace('/', '--')}-{name.split}-{key}.tar"
    if not shard.exists():
        _download(name, text, limit, shard)
    return open_shards([shard], cache)


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
        if _saved_to_disk(Path(name.where)):
            data = datasets.load_from_disk(name.where)
        else:
            data = datasets.load_dataset(name.where, name.subset, revision=name.revision, **options)
    except Exception as error:  # of the library, the hub, the network: whatever it is, it is said
        why = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConfigError(f"{text} cannot be opened ({why}): check the name, or type data=FOLDER") from None
    if isinstance(data, dict):
        if name.split not in data:
            raise ConfigError(f"{text} has no split {name.split}: its splits are {', '.join(data)}")
        data = data[name.split]
    column = _column(data, text, name.column)
    return data.select_columns([column]).cast_column(column, datasets.Image(decode=False)), column


def _column(data: Any, text: str, wanted: str) -> str:
    features = data.features or data._resolve_features().features
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if wanted in features:
        return wanted
    if wanted or len(images) != 1:
        has = f"columns of images are {', '.join(images)}" if images else "there is no column of images"
        asked = f"{text} has no column {wanted}" if wanted else f"{text} needs a column"
        raise ConfigError(f"{asked}, {has}: type hf:NAME:SPLIT:COLUMN with one of {', '.join(features)}")
    return images[0]


def _download(name: Name, text: str, limit: int, shard: Path) -> None:
    """Stream a split's images, up to `limit`, into a tar file; it appears only when it is complete."""
    rows, column = _load(text, name, streaming=True)
    rows = rows.take(limit) if limit else rows
    shard.parent.mkdir(parents=True, exist_ok=True)
    temporary = shard.with_name(f"{shard.name}.{os.getpid()}")
    try:
        write_shard(
            (row[column] for row in tqdm(rows, f"streaming {text}", mininterval=5, unit="image")), temporary
        )
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
            return {"jpeg": "jpg", "mpo": "jpg"}.get(kind, kind)
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

    return [f"{i:08}" for i in range(len(data))], read, lambda row: f"{stamps} {row}"


def _file_stamp(path: str) -> str:
    stat = os.stat(path)
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"
