"""Batches for the training loop, cropped and copied to the device ahead of time by one background thread.

A thread and not torch's DataLoader: numpy crops with the interpreter unlocked, whereas a DataLoader's process
sends each batch through shared memory, for three times the processor time. `python -m benchmarks.loader`
prints how long a step waits for either.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.schema import LoopConfig

AHEAD = 2  # steps


class TrainingData(Protocol):
    """What can be trained on: an `ImageDataset`, or anything else whose batches are a function of seed and
    step.
    """

    @property
    def fingerprint(self) -> str:
        """Which data these are, for the manifest."""

    def train_batch(
        self, step: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, pin: bool = False
    ) -> Tensor:
        """Part `rank` of the `world` equal ones of a step's batch: every `world`-th sample of it."""


class Part(NamedTuple):
    images: Tensor
    ready: torch.cuda.Event | None  # the copy to the GPU is done


class Loader:
    """One process's share of every step: `config.grad_accum_steps` parts, of all `world` processes' equal
    parts.

    The parts of all processes together are exactly the batch that one process would see, each part every
    (world * grad_accum_steps)-th image of it. `with Loader(...) as loader: loader.parts(step)`; steps may be
    asked for in any order, in the usual one they are there already. `waited` is the time spent waiting,
    seconds.
    """

    def __init__(
        self,
        images: TrainingData,
        config: LoopConfig,
        device: torch.device | str,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
    ):
        each = config.grad_accum_steps
        self._parts, self._count = range(rank * each, (rank + 1) * each), world * each
        if config.batch_size % self._count:
            near = -(-config.batch_size // self._count) * self._count
            raise ConfigError(
                f"batch_size={config.batch_size} is no multiple of {world} processes times "
                f"grad_accum_steps={each}: type batch_size={near}"
            )
        self.images, self.config, self.device = images, config, torch.device(device)
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, "loader")
        self._coming: dict[int, list[Future[Part]]] = {}  # step -> its parts
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._read_ahead(start)

    def parts(self, step: int) -> list[Tensor]:
        """The parts of a step, batch_size / (world * grad_accum_steps) samples each, on the device; of images
        uint8 [b, 3, S, S].

        Raises what reading them raised.
        """
        began = time.perf_counter()
        self._read_ahead(step)
        parts = [future.result() for future in self._coming.pop(step)]
        self.waited += time.perf_counter() - began
        return [self._usable(part) for part in parts]

    def close(self) -> None:
        """End the thread, at once but for the part that it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_ahead(self, step: int) -> None:
        """Have the steps from `step` to AHEAD later read, none after the last of the run, and no others."""
        wanted = range(step, max(step + 1, min(step + AHEAD + 1, self.config.steps)))
        for other in self._coming.keys() - wanted:
            for future in self._coming.pop(other):
                future.cancel()
        for coming in wanted:
            if coming not in self._coming:
                self._coming[coming] = [self._thread.submit(self._read, coming, m) for m in self._parts]

    def _read(self, step: int, part: int) -> Part:
        batch_size, seed, stream = self.config.batch_size, self.config.seed, self._stream
        pin = stream is not None
        images = self.images.train_batch(step, batch_size, seed, part, self._count, pin)
        with torch.cuda.stream(stream):  # beside what the GPU computes; nothing without one
            images = images.to(self.device, non_blocking=pin)
            return Part(images, stream.record_event() if stream else None)

    def _usable(self, part: Part) -> Tensor:
        """A part that the current stream of the GPU may use, once its copy is done."""
        if part.ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(part.ready)
            part.images.record_stream(stream)
        return part.images
