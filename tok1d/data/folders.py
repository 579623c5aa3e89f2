"""Folders and list files: every image there is, each once, and what lies beside the images.

A folder may hold pictures, shards and tables with a column of images; the kind with the most images is what
it is read as, and what that leaves out is said. Links are followed; what is hidden is left alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tok1d.config.fields import ConfigError
from tok1d.data.decode import is_heic
from tok1d.data.left_out import (
    HIDDEN,
    SAME,
    UNFINISHED,
    UNLISTED,
    LeftOut,
    is_picture,
    not_opened,
    suffix_of,
)

BESIDE = {
    ".json", ".jsonl", ".txt", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".md", ".html", ".log", ".npy",
    ".npz", ".pt", ".pth", ".safetensors", ".bin", ".mat", ".h5", ".pkl", ".arrow", ".idx", ".db", ".py",
    ".sh",
}  # fmt: skip  # often beside images and none themselves: their first bytes are not looked at


class Folder(NamedTuple):
    """What is below a folder."""

    pictures: list[str]  # names from the folder on, sorted
    shards: list[Path]
    tables: list[Path]  # parquet files, with images or without
    left_out: LeftOut


def look_into(root: Path) -> Folder:
    """The files below a folder by what they are; each folder is entered once, whatever links there are."""
    found = Folder([], [], [], {})
    links: dict[str, str] = {}  # name of a picture that is a link -> the file
    entered, ahead, prefix = set(), [str(root)], os.path.join(root, "")
    while ahead:
        folder = ahead.pop()
        real = os.path.realpath(folder)
        if real in entered:
            continue
        entered.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            found.left_out.setdefault(UNLISTED, []).append(os.path.relpath(folder, root))
            continue
        folders = []
        for entry in entries:
            name = entry.path[len(prefix) :]
            if entry.name.startswith("."):
                hidden = [name, *(f"{name}/{inside}" for inside in _listing(entry))]
                if pictures := [each for each in hidden if is_picture(suffix_of(each))]:
                    found.left_out.setdefault(HIDDEN, []).extend(pictures)
            elif _is(entry.is_dir):
                folders.append(entry.path)
            elif _sort_in(entry, name, found) and entry.is_symlink():
                links[name] = os.path.realpath(entry.path)
        ahead += reversed(folders)
    found.pictures.sort()
    if links:
        place = places(root)
        files = {place(name) for name in found.pictures if name not in links}
        again = []
        for name in sorted(links):
            if links[name] in files:
                again.append(name)
            files.add(links[name])
        found.pictures[:] = sorted(set(found.pictures) - set(again))
        if again:
            found.left_out[SAME] = again
    return found


def _sort_in(entry: os.DirEntry[str], name: str, found: Folder) -> bool:
    """Put a file where it belongs; whether it is a picture."""
    suffix = suffix_of(entry.name)
    if suffix == ".tar":
        if any(part.startswith("_") for part in name.split("/")[:-1]):
            found.left_out.setdefault(UNFINISHED, []).append(name)
        elif _is(entry.is_file):
            found.shards.append(Path(entry.path))
    elif suffix == ".parquet" and _is(entry.is_file):
        found.tables.append(Path(entry.path))
    elif is_picture(suffix):  # or a broken link, or a pipe: decoding says so
        found.pictures.append(name)
        return True
    elif suffix not in BESIDE:
        why = not_opened(suffix)
        begins = b"" if why or not _is(entry.is_file) else _first_bytes(entry.path)
        if _is_image(begins):
            why = not_opened(".heic") if is_heic(begins) and not is_picture(".heic") else None
            if why is None:
                found.pictures.append(name)
                return True
        if why:
            found.left_out.setdefault(why, []).append(name)
    return False


def _is(asked: Callable[[], bool]) -> bool:
    """What a directory entry says of itself; a link that leads to itself is nothing."""
    try:
        return asked()
    except OSError:
        return False


def _listing(entry: os.DirEntry[str]) -> list[str]:
    try:
        return sorted(os.listdir(entry.path)) if _is(entry.is_dir) else []
    except OSError:
        return []


def _first_bytes(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(16)
    except OSError:
        return b""


def _is_image(begins: bytes) -> bool:
    """Whether a file with these first bytes is a photograph, whatever its name."""
    webp = begins[:4] == b"RIFF" and begins[8:12] == b"WEBP"
    avif = begins[4:12] in (b"ftypavif", b"ftypavis")
    starts = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"
    return begins.startswith(starts) or webp or avif or is_heic(begins)


def places(root: Path) -> Callable[[str], str]:
    """A function from names to where their files really are: the same for two names of one file."""
    folders: dict[str, str] = {}

    def place(name: str) -> str:
        path = os.path.join(root, name)
        folder, base = os.path.split(path)
        if base in ("", ".", "..") or os.path.islink(path):
            return os.path.realpath(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        return os.path.join(folders[folder], base)

    return place


def listed(path: Path, root: Path) -> tuple[list[str], LeftOut]:
    """The image paths in a list file, each file once, whatever it is called; names that were left out.

    Lines that begin with # are comments, unless there is such a file. Raises `ConfigError`.
    """
    try:
        raw = path.read_bytes()
        if "\0" in raw.decode("utf-8-sig"):
            raise ValueError
    except (OSError, ValueError):
        raise ConfigError(f"{path} cannot be read: save it as UTF-8 text, one image path a line") from None
    lines = (
        os.fsdecode(line.strip()) for line in re.split(rb"\r\n|\r|\n", raw.removeprefix(b"\xef\xbb\xbf"))
    )
    place, seen = places(root), set()
    names: list[str] = []
    again: list[str] = []
    for line in lines:
        if not line or (line.startswith("#") and not (root / line).is_file()):
            continue
        where = place(line)
        (again if where in seen else names).append(line)
        seen.add(where)
    return names, {SAME: again} if again else {}


def tables_of_images(tables: Iterable[Path]) -> tuple[list[Path], int]:
    """The parquet files with a column of images, and their rows; the first of each folder speaks for all."""
    import pyarrow.parquet as parquet

    speaks: dict[Path, bool] = {}
    with_images, rows = [], 0
    for table in tables:
        try:
            if table.parent not in speaks:
                speaks[table.parent] = has_images(parquet.read_schema(table))
            if speaks[table.parent]:
                rows += parquet.read_metadata(table).num_rows
                with_images.append(table)
        except Exception:  # no parquet file, or half of one: who asks for it is told
            continue
    return with_images, rows


def has_images(schema) -> bool:
    """Whether an Arrow schema has a column that `datasets` takes for images, or that could be one."""
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    if features := info.get("info", {}).get("features"):
        return any(
            feature.get("_type") == "Image" for feature in features.values() if isinstance(feature, dict)
        )
    import pyarrow

    structs = [field.type for field in schema if pyarrow.types.is_struct(field.type)]
    return any(
        {"bytes", "path"} <= {struct.field(i).name for i in range(struct.num_fields)} for struct in structs
    )
