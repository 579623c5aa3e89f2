"""Images in tar files, as webdataset writes them: read by place, so in any order, without unpacking.

The members of a tar that share a name up to its first dot are one sample: `0001.jpg` beside `0001.json`. Each
sample gives one image, `KEY.jpg` before `KEY.seg.png`; what is no image is left alone.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # its stub lacks it

from tok1d.config.fields import ConfigError
from tok1d.data.decode import SUFFIXES, Picture, Unreadable, decode

Reader = tuple[list[str], Callable[[str], tuple[Picture, str]], Callable[[str], str]]  # names, read, stamp
Members = dict[str, tuple[int, int]]  # name -> first byte and number of bytes in the tar


def find(where: str) -> list[Path]:
    """The shards that `data:` names: train-{0000..0099}.tar, train-*.tar, one .tar, or a folder of them.

    [] where it names something else. Raises `ConfigError` when one is missing.
    """
    path = Path(where).expanduser()
    if path.is_dir():  # with images beside them it is a folder of images
        files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")]
        tars = [file for file in files if file.suffix.lower() == ".tar"]
        return [] if any(file.suffix.lower() in SUFFIXES or file.is_dir() for file in files) else tars
    if path.suffix.lower() != ".tar":
        return []
    try:
        patterns = [str(path)] if path.exists() else list(braceexpand(str(path), escape=False))
    except UnbalancedBracesError:
        raise ConfigError(f"{path} lacks a brace: type data=train-{{0000..0099}}.tar") from None
    found = []
    for pattern in patterns:
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
        if not matches:
            raise ConfigError(
                f"there is no {pattern}: type data=train-{{0000..0099}}.tar of shards there are"
            )
        found += matches
    return [Path(tar) for tar in dict.fromkeys(found)]


def open_shards(tars: list[Path], cache: Path) -> Reader:
    """Names, a way to read each, and its stamp. Raises `ConfigError` for what is no whole tar file."""
    above = Path(os.path.commonpath([tar.absolute().parent for tar in tars]))
    with ThreadPoolExecutor(8) as pool:  # most of the time goes into waiting for the disk
        indices = list(pool.map(lambda tar: index(tar, cache), tars))
    places: dict[str, tuple[Path, str, int, int]] = {}
    stamps: dict[str, str] = {}
    for tar, members in zip(tars, indices, strict=True):
        name = tar.absolute().relative_to(above).as_posix()
        stamps[name] = stamp(tar)
        places |= {f"{name}/{member}": (tar, name, *place) for member, place in members.items()}
    if not places:
        raise ConfigError(f"there are no images in {tars[0]}: put members such as 0001.jpg into it")

    def read(name: str) -> tuple[Picture, str]:
        tar, _, start, count = places[name]
        try:
            with open(tar, "rb", buffering=0) as file:
                return decode(os.pread(file.fileno(), count, start))
        except OSError as error:
            raise Unreadable((error.strerror or "cannot be read").lower()) from None

    def stamp_of(name: str) -> str:
        _, tar_name, start, count = places[name]
        return f"{stamps[tar_name]} {start} {count}"

    return list(places), read, stamp_of


def stamp(tar: Path) -> str:
    """Changes with the file's place, size or date."""
    stat = tar.stat()
    return f"{tar.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def index(tar: Path, cache: Path) -> Members:
    """Where each sample's image lies in a tar; found once, then kept in the cache folder."""
    kept = (
        cache / "shards" / f"{hashlib.sha256(stamp(tar).encode(errors='surrogateescape')).hexdigest()}.json"
    )
    try:
        return {name: tuple(place) for name, place in json.loads(kept.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError):
        members = _index(tar)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f"{kept.name}.{os.getpid()}")
        temporary.write_text(json.dumps(members), encoding="utf-8")
        temporary.replace(kept)
    except OSError:  # it is found again next time
        pass
    return members


def _index(tar: Path) -> Members:
    best: dict[str, tuple[int, str, tuple[int, int]]] = {}  # key -> rank, name, place
    try:
        with tarfile.open(tar, "r:") as file:
            for member in file:
                folder, _, base = member.name.rpartition("/")
                key, _, extension = base.partition(".")
                suffix = f".{extension.rpartition('.')[2].lower()}"
                if not member.isreg() or not key or suffix not in SUFFIXES:
                    continue
                rank, sample = extension.count("."), f"{folder}/{key}"
                if sample not in best or rank < best[sample][0]:
                    best[sample] = rank, member.name, (member.offset_data, member.size)
            whole = file.offset <= tar.stat().st_size
    except (tarfile.TarError, OSError) as error:
        raise ConfigError(f"{tar} is no plain tar file ({error}): copy it again, or unpack .tar.gz") from None
    if not whole:
        raise ConfigError(f"{tar} is cut short: copy it again")
    return {name: place for _, name, place in best.values()}
