"""Images as pixels: decoded once, kept as uint8 in a memory-mapped cache; or decoded anew for every batch.

With `decode: cache` every image is decoded and resized a single time, before training: bad files are found
then, and no step waits for a JPEG. With `decode: stream` nothing is kept: for sets that no disk holds decoded
(ImageNet's 1.3 million images at 256 pixels are 330 GB). The batches are the same.

Which images, crops and mirrors make up step `s` is a pure function of (seed, s), so a resumed run sees what
an uninterrupted one would have seen, on any number of processes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.decode import RESIZE_RULE, Unreadable, can_open_heic, center_crop, random_crop_flip, resize
from tok1d.data.left_out import say
from tok1d.data.sources import ATTRIBUTES, Source, find_sources
from tok1d.data.split import alike, overlap
from tok1d.system.files import remove_abandoned, temporary_name
from tok1d.system.progress import counted


@dataclass(frozen=True)
class ImageDataset:
    """Images by index, shorter side = `size`; see `tok1d.data.dataset` for where they come from."""

    size: int
    names: list[str]
    labels: list[dict[str, str]] | None
    fingerprint: str
    unreadable: dict[str, str]  # name -> why

    rule = RESIZE_RULE  # how they were made square, for the card of an evaluation
    threads = 1  # that read a batch
    streamed = False  # whether an image is decoded each time

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> np.ndarray:
        """uint8 [h, w, 3]."""
        raise NotImplementedError

    def center_crops(self, indices: Sequence[int]) -> Tensor:
        """Center crops, uint8 [B, 3, size, size]."""
        return self._stack(lambda i: center_crop(self[i], self.size), indices)

    def evenly_spaced(self, count: int) -> list[int]:
        """`count` indices, evenly over all images (all of them if there are fewer)."""
        return np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int).tolist()

    def batches(self, batch_size: int, limit: int = 0) -> Iterator[Tensor]:
        """All center crops in order (or the first `limit`), uint8 [≤ batch_size, 3, size, size] at a time."""
        count = min(limit or len(self), len(self))
        for start in range(0, count, batch_size):
            yield self.center_crops(range(start, min(start + batch_size, count)))

    def train_batch(
        self, step: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, pin: bool = False
    ) -> Tensor:
        """Process `rank`'s part of a batch: random crops and mirrors, uint8 [batch_size / world, 3, s, s].

        Every epoch sees every image once; the ranks' parts, interleaved, are the batch of one process. `pin`
        puts it into memory that a GPU copies from without waiting.
        """

        def crop(position: int) -> np.ndarray:
            epoch, offset = divmod(position, len(self))
            rng = np.random.default_rng((seed, 1, position))
            return random_crop_flip(self[int(_order(seed, epoch, len(self))[offset])], self.size, rng)

        return self._stack(crop, range(step * batch_size + rank, (step + 1) * batch_size, world), pin)

    def _stack(self, crop: Callable[[int], np.ndarray], items: Sequence[int], pin: bool = False) -> Tensor:
        """Crops [size, size, 3] -> uint8 [B, 3, size, size]."""
        out = torch.empty(len(items), 3, self.size, self.size, dtype=torch.uint8, pin_memory=pin)
        rows = out.numpy()  # numpy copies with the interpreter unlocked, and in no threads of its own

        def put(row: np.ndarray, item: int) -> None:
            row[:] = crop(item).transpose(2, 0, 1)

        if self.threads == 1:
            for row, item in zip(rows, items, strict=True):
                put(row, item)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(put, rows, items))
        return out


@functools.lru_cache(maxsize=4)  # a batch can straddle two epochs
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The shuffled order of one epoch."""
    return np.random.default_rng((seed, 0, epoch)).permutation(count)


class WholeImages(Sequence[Tensor]):
    """Images before any crop, uint8 [3, h, w] each, read one at a time; at most `most` of them."""

    def __init__(self, images: ImageDataset, most: int = 5000):
        self.images, self.chosen = images, images.evenly_spaced(most)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i):
        return torch.from_numpy(self.images[self.chosen[i]].transpose(2, 0, 1).copy())


def to_float(images: Tensor) -> Tensor:
    """uint8 0 … 255 -> float 0 … 1. Raises `ConfigError` for other numbers: what they mean is not known."""
    if images.dtype != torch.uint8:
        kind = str(images.dtype).removeprefix("torch.")
        raise ConfigError(
            f"images are uint8 in 0 … 255 here, got {kind}: "
            f"type (255 * images).round().to(torch.uint8) if they are in 0 … 1"
        )
    return images.float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """float 0 … 1 -> uint8 0 … 255, clamped and rounded, as a saved PNG would be."""
    return images.float().clamp(0, 1).mul(255).round().to(torch.uint8)


CACHE_VERSION = 3  # changes with the resize rule
READS = 2  # changes when more files can be read: caches that left some out are made again
DAY = 24 * 3600
CAN_TYPE = "type max_unreadable={enough} to go on without"  # where the parameters of data are


@dataclass(frozen=True)
class CachedDataset(ImageDataset):
    """Decoded images. `fingerprint` is a hash over every file's name and content."""

    shapes: list[tuple[int, int]]  # h, w
    starts: list[int]  # where image i begins in `pixels`
    pixels: np.ndarray  # uint8, flat, memory-mapped

    def __getitem__(self, i: int) -> np.ndarray:
        """uint8 [h, w, 3]."""
        (h, w), start = self.shapes[i], self.starts[i]
        return self.pixels[start : start + 3 * h * w].reshape(h, w, 3)


@dataclass(frozen=True)
class StreamedDataset(ImageDataset):
    """Images that are decoded whenever they are asked for.

    `fingerprint` is a hash over every file's name and stamp (place, size, dates), not its content. One that
    cannot be read is replaced by the next that can; `unreadable` fills while they are met.
    """

    source: Source
    max_unreadable: float

    threads = max(2, os.cpu_count() or 1)
    streamed = True

    def __getitem__(self, i: int) -> np.ndarray:
        """uint8 [h, w, 3]. Raises `ConfigError` once a larger share than `max_unreadable` was unreadable."""
        while True:
            name = self.names[i]
            try:
                return resize(self.source.read(name)[0], self.size)
            except Unreadable as error:
                if name not in self.unreadable:
                    self.unreadable[name] = str(error)
                    where, most = self.source.where, self.max_unreadable
                    _check_unreadable(self.unreadable, len(self), where, most, CAN_TYPE)
            i = (i + 1) % len(self)


def load_data(config: DataConfig, size: int, cache: str | Path) -> tuple[ImageDataset, ImageDataset]:
    """The training and validation images at `size` pixels, through the cache folder. Raises `ConfigError`.

    Validation images are always decoded into the cache: measurements name the fingerprint of their content.
    Those that are training images too, or look like some, are counted and said.
    """
    train, val = find_sources(config, size, cache)
    images: ImageDataset
    if config.decode == "stream":
        images = stream_images(train, size, config.max_unreadable)
    else:
        images = load_images(train, size, cache, config.max_unreadable, CAN_TYPE)
    val_images = load_images(val, size, cache, config.max_unreadable, CAN_TYPE)
    if said := overlap(train, val) or ("" if config.data == "toy-roads" else alike(images, val_images)):
        offers = ["val_data=FOLDER of other images"]
        if not config.val_data and config.hold_out != "block":
            offers.insert(0, "hold_out=block for frames of a video")
        say(f"{said}: type {', or '.join(offers)}")
    return images, val_images


def stream_images(source: Source, size: int, max_unreadable: float = 0.01) -> StreamedDataset:
    """A source that is decoded on the fly."""
    stamps = hashlib.sha256()
    for name in source.names:
        stamps.update(f"{name} {source.stamp(name)}\n".encode(errors="surrogateescape"))
    fingerprint = f"stamps-{stamps.hexdigest()[:16]}"
    return StreamedDataset(size, source.names, source.labels, fingerprint, {}, source, max_unreadable)


def load_images(
    source: Source,
    size: int,
    cache: str | Path,
    max_unreadable: float = 0.01,
    otherwise: str = "list the others in a .txt file and give that",
) -> CachedDataset:
    """Decode a source into the cache, or open it there. Files that cannot be read are named and left out.

    Raises `ConfigError` if they are more than `max_unreadable`, with what else could be done (`otherwise`).
    """
    folder = Path(cache) / _cache_key(source, size)
    index = _complete(folder)
    if index is None:
        try:
            _decode(source, size, folder)
        except OSError as error:
            why = f"the image cache {cache} cannot be written ({(error.strerror or str(error)).lower()})"
            raise ConfigError(f"{why}: make room there, or type outputs=FOLDER on another disk") from None
        index = _complete(folder)
    assert index is not None
    _check_unreadable(index["unreadable"], len(source.names), source.where, max_unreadable, otherwise)
    pixels = np.memmap(folder / "pixels.u8", np.uint8, mode="r")
    shapes = [tuple(shape) for shape in index["shapes"]]
    starts = np.cumsum([0, *(3 * h * w for h, w in shapes)])[:-1].tolist()
    labels = None
    if source.labels:
        by_name = dict(zip(source.names, source.labels, strict=True))
        labels = [{k: by_name[name].get(k, "") for k in ATTRIBUTES} for name in index["names"]]
    return CachedDataset(
        size, index["names"], labels, index["fingerprint"], index["unreadable"], shapes, starts, pixels
    )


def _complete(folder: Path) -> dict[str, Any] | None:
    """The index of a cache folder that is all there: a crash of the machine can cut files short, and an
    earlier version may have left out what can be read now.
    """
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        whole = (folder / "pixels.u8").stat().st_size == sum(3 * h * w for h, w in index["shapes"])
    except (OSError, ValueError):
        return None
    return index if whole and (index.get("reads") == _reads() or not index["unreadable"]) else None


def _reads() -> str:
    return f"{READS} {'with' if can_open_heic() else 'without'} HEIC"


def _decode(source: Source, size: int, folder: Path) -> None:
    """Write `pixels.u8` and `index.json` for a source; the folder appears only when it is complete."""
    _remove_abandoned(folder.parent)
    temporary = temporary_name(folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}"))
    temporary.mkdir(parents=True)
    names, shapes, unreadable, content = [], [], {}, hashlib.sha256()

    def decode(name: str) -> tuple[np.ndarray, str] | str:
        try:
            picture, digest = source.read(name)
            return resize(picture, size), digest
        except Unreadable as error:
            return str(error)

    try:
        with open(temporary / "pixels.u8", "wb") as out, ThreadPoolExecutor(os.cpu_count()) as pool:
            results = zip(source.names, _ahead(pool, decode, source.names), strict=True)
            for name, result in counted(results, f"reading {source.where}", len(source.names), "images"):
                if isinstance(result, str):
                    unreadable[name] = result
                    continue
                pixels, digest = result
                out.write(pixels.data)
                names.append(name)
                shapes.append(pixels.shape[:2])
                content.update(f"{name}\0{digest}\n".encode(errors="surrogateescape"))
        index = dict(names=names, shapes=shapes, unreadable=unreadable, fingerprint=content.hexdigest()[:16])
        index["reads"] = _reads()
        (temporary / "index.json").write_text(json.dumps(index), encoding="utf-8")
        if not names:
            _check_unreadable(unreadable, len(source.names), source.where, 1.0, "")
        _put(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(cache: Path) -> None:
    """What killed processes left half-written; of an earlier tok1d once nobody wrote to it for a day."""
    remove_abandoned(cache)
    for folder in cache.glob("*.tmp"):
        written = [path.stat().st_mtime for path in (folder, *folder.glob("*")) if path.exists()]
        if written and max(written) < time.time() - DAY:
            shutil.rmtree(folder, ignore_errors=True)


def _put(temporary: Path, folder: Path) -> None:
    """Rename into place, over what a crash left; another process may have been first with the same."""
    if folder.exists() and _complete(folder) is None:
        shutil.rmtree(folder)
    try:
        temporary.rename(folder)
    except OSError:
        if _complete(folder) is None:
            raise


def _ahead(pool: ThreadPoolExecutor, function, items: list[str], ahead: int = 64) -> Iterator:
    """`map` in threads and in order that never holds more than `ahead` results in memory."""
    futures = []
    for item in items:
        futures.append(pool.submit(function, item))
        if len(futures) >= ahead:
            yield futures.pop(0).result()
    for future in futures:
        yield future.result()


def _check_unreadable(
    unreadable: dict[str, str], count: int, where: str, limit: float, otherwise: str
) -> None:
    if not unreadable:
        return
    name, why = next(iter(unreadable.items()))
    name, share = name.encode(errors="replace").decode(), len(unreadable) / count
    first = f"{len(unreadable)} of {count} images of {where} cannot be read, the first is {name} ({why})"
    if share == 1:
        raise ConfigError(f"{first}: mend them, or type data=PATH of other images")
    if share > limit:
        enough = math.ceil(100 * share) / 100
        raise ConfigError(f"{first}: mend or remove them, or {otherwise.format(enough=enough)}")
    say(f"left out: {first}")


def _cache_key(source: Source, size: int) -> str:
    """Changes with the list of images and with each file's size or modification time."""
    key = hashlib.sha256(f"{CACHE_VERSION} {source.where} {size}\n".encode())
    for name in source.names:
        key.update(f"{name} {source.stamp(name)}\n".encode(errors="surrogateescape"))
    return f"{size}px-{key.hexdigest()[:16]}"
