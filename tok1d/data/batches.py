"""Batches of images: which images, crops and mirrors make up step `s` is a pure function of (seed, s).

So a resumed run sees what an uninterrupted one would have seen, on any number of processes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tok1d.data.decode import RESIZE_RULE, centre_crop, random_crop_flip


@dataclass(frozen=True)
class Images:
    """Images by index, shorter side = `size`; see `tok1d.data.dataset` for where they come from."""

    size: int
    names: list[str]
    labels: list[dict[str, str]] | None
    fingerprint: str
    unreadable: dict[str, str]  # name -> why

    rule = RESIZE_RULE  # how they were made square, for the card of an evaluation
    threads = 1  # that read a batch

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> np.ndarray:
        """uint8 [h, w, 3]."""
        raise NotImplementedError

    def centre(self, indices: Sequence[int]) -> Tensor:
        """Centre crops, uint8 [B, 3, size, size]."""
        return self._stack(lambda i: centre_crop(self[i], self.size), indices)

    def spread(self, count: int) -> list[int]:
        """`count` indices, evenly over all images (all of them if there are fewer)."""
        return np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int).tolist()

    def batches(self, batch_size: int, limit: int = 0) -> Iterator[Tensor]:
        """All centre crops in order (or the first `limit`), uint8 [≤ batch_size, 3, size, size] at a time."""
        count = min(limit or len(self), len(self))
        for start in range(0, count, batch_size):
            yield self.centre(range(start, min(start + batch_size, count)))

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


def to_float(images: Tensor) -> Tensor:
    """uint8 0 … 255 -> float 0 … 1."""
    return images.float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """float 0 … 1 -> uint8 0 … 255, clamped and rounded, as a saved PNG would be."""
    return images.float().clamp(0, 1).mul(255).round().to(torch.uint8)
