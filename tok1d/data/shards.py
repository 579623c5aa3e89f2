"""Images in tar files, as webdataset writes them: read by place, so in any order, without unpacking.

Every member that is an image is taken, whatever dots are in its name, but

- `KEY.seg.png` and other maps of webdataset's samples (`KINDS`) beside another image of the same `KEY`,
- of `KEY.jpg` and `KEY.png`, which webdataset takes for one sample, all but the first,
- what is hidden, as `.ipynb_checkpoints/a.jpg`, and what an update of the same name replaced (`tar -r`).

They are counted and said. What is no image is left alone.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # its stub lacks it

from tok1d.config.fields import ConfigError
from tok1d.data.decode import Picture, Unreadable, can_open_heic, decode
from tok1d.data.left_out import (
    HIDDEN,
    LOST,
    MAP,
    OTHER_KIND,
    REPLACED,
    SAME,
    LeftOut,
    enumerated,
    is_hidden,
    is_picture,
    not_opened,
    say_left_out,
    suffix_of,
)

INDEX_VERSION = 2  # changes with what is taken from a tar
KINDS = {
    *("seg", "segmentation", "semantic", "instance", "panoptic", "mask", "masks", "matte", "alpha", "trimap"),
    *("label", "labels", "ann", "annotation", "depth", "disparity", "normal", "normals", "flow", "edge"),
    *("edges", "canny", "thumb", "thumbnail", "preview"),
}  # of images that accompany another one


class Reader(NamedTuple):
    """Images by name, as `tok1d.data.sources.Source` has them."""

    names: list[str]
    read: Callable[[str], tuple[Picture, str]]
    stamp: Callable[[str], str]
    place: Callable[[str], str]


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    place: tuple[int, int]  # first byte, and number of bytes
    target: str  # what it is a link to, if it is one


class Index(NamedTuple):
    """What is in a tar."""

    members: dict[str, tuple[int, int]]  # image -> its first byte, and number of bytes
    left_out: LeftOut


def find(where: str) -> list[Path]:
    """The shards that `data:` names: train-{0000..0099}.tar, train-*.tar, or one .tar.

    [] where it names something else. Raises `ConfigError` when one is missing.
    """
    path = Path(where).expanduser()
    if path.is_dir() or path.suffix.lower() != ".tar":
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


def open_shards(tars: list[Path], where: str, cache: Path) -> Reader:
    """What they hold. Raises `ConfigError` for what is no whole tar file."""
    above = Path(os.path.commonpath([tar.absolute().parent for tar in tars]))
    places: dict[str, tuple[Path, str, int, int]] = {}
    stamps: dict[str, str] = {}
    left_out: LeftOut = {}
    for tar, found in zip(tars, indices(tars, cache), strict=True):
        name = tar.absolute().relative_to(above).as_posix()
        stamps[name] = stamp(tar)
        places |= {f"{name}/{member}": (tar, name, *place) for member, place in found.members.items()}
        for why, members in found.left_out.items():
            left_out.setdefault(why, []).extend(f"{name}/{member}" for member in members)
    if not places:
        beside = f" but {enumerated(left_out)}" if left_out else ""
        raise ConfigError(f"there are no images in {tars[0]}{beside}: put members such as 0001.jpg into it")
    say_left_out(left_out, where)

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

    def place(name: str) -> str:
        tar, _, start, _ = places[name]
        return f"{tar.resolve()} {start}"

    return Reader(list(places), read, stamp_of, place)


def stamp(tar: Path) -> str:
    """Changes with the file's place, size or date."""
    stat = tar.stat()
    return f"{tar.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def indices(tars: list[Path], cache: Path) -> list[Index]:
    """The index of each, in order. Raises `ConfigError`."""
    with ThreadPoolExecutor(8) as pool:  # most of the time goes into waiting for the disk
        return list(pool.map(lambda tar: index(tar, cache), tars))


def count(tars: list[Path], cache: Path) -> int:
    """How many images they hold; those that cannot be read have none."""
    images = 0
    for tar in tars:
        with suppress(ConfigError):
            images += len(index(tar, cache).members)
    return images


def index(tar: Path, cache: Path) -> Index:
    """What is in a tar; found once, then kept in the cache folder. Raises `ConfigError`."""
    if not tar.is_file():  # reading a pipe may never end
        raise ConfigError(f"{tar} is no file: copy the shard to a disk")
    key = f"{INDEX_VERSION} {can_open_heic()} {stamp(tar)}".encode(errors="surrogateescape")
    kept = cache / "shards" / f"{hashlib.sha256(key).hexdigest()}.json"
    try:
        found = Index(**json.loads(kept.read_text(encoding="utf-8")))
        return found._replace(
            members={name: (start, count) for name, (start, count) in found.members.items()}
        )
    except (OSError, ValueError, TypeError):
        found = _index(tar)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f"{kept.name}.{os.getpid()}")
        temporary.write_text(json.dumps(found._asdict()), encoding="utf-8")
        temporary.replace(kept)
    except OSError:  # it is found again next time
        pass
    return found


def _index(tar: Path) -> Index:
    found: dict[str, Member] = {}  # by its path when unpacked
    left_out: LeftOut = {}
    try:
        with tarfile.open(tar, "r:") as file:
            for member in file:
                path, target = os.path.normpath(member.name), ""
                if member.issym():
                    target = os.path.normpath(os.path.join(os.path.dirname(path), member.linkname))
                elif member.islnk():
                    target = os.path.normpath(member.linkname)
                elif not member.isreg():
                    continue
                if path in found and is_picture(suffix_of(path)):  # `tar -r` of a mended file
                    left_out.setdefault(REPLACED, []).append(found[path].name)
                found[path] = Member(member.name, (member.offset_data, member.size), target)
            whole = file.offset <= tar.stat().st_size
    except (tarfile.TarError, OSError) as error:
        raise ConfigError(f"{tar} is no plain tar file ({error}): copy it again, or unpack .tar.gz") from None
    if not whole:
        raise ConfigError(f"{tar} is cut short: copy it again")
    return Index(_chosen(found, left_out), left_out)


def _chosen(found: dict[str, Member], left_out: LeftOut) -> dict[str, tuple[int, int]]:
    """Of a tar's files by path the images to train on, and where they lie; why others are not goes into
    `left_out`.
    """
    kept: dict[str, tuple[int, int]] = {}
    samples: set[str] = set()
    named: set[str] = set()  # keys that maps may have
    places: set[tuple[int, int]] = set()
    for path in sorted(found, key=lambda path: _is_map(path)):  # maps last: is there another image?
        name, place, target = found[path]
        hidden, picture = is_hidden(path), is_picture(suffix_of(path))
        if not picture:
            if not hidden and (why := not_opened(suffix_of(path))):
                left_out.setdefault(why, []).append(name)
            continue
        for _ in range(10):  # a link may be to a link
            if target in found:
                place, target = found[target][1:]
        sample = os.path.splitext(path)[0]
        sample = os.path.splitext(sample)[0] if _is_map(path) else sample
        why = (
            HIDDEN if hidden else LOST if target else SAME if place in places
            else MAP if _is_map(path) and sample in named else OTHER_KIND if sample in samples else None
        )  # fmt: skip
        if why:
            left_out.setdefault(why, []).append(name)
        else:
            kept[name] = place
            samples.add(sample)
            named |= {sample, os.path.splitext(sample)[0]}  # KEY.image.jpg is of KEY too
            places.add(place)
    return {member.name: kept[member.name] for member in found.values() if member.name in kept}


def _is_map(path: str) -> bool:
    return os.path.splitext(os.path.splitext(path)[0])[1][1:].lower() in KINDS
