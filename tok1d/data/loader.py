"""Batches for the training loop, cropped and copied to the device ahead of time by one background thread."""

from __future__ import annotations

import time
from collections import deque
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
        parts = world * config.grad_accum_steps
        if config.batch_size % parts:
            near = -(-config.batch_size // parts) * parts
            raise ConfigError(
                f"batch_size={config.batch_size} is no multiple of {world} processes times "
                f"grad_accum_steps={config.grad_accum_steps}: type batch_size={near}"
            )
        self.images, self.config, self.device = images, config, torch.device(device)
        self.mine, self.all = (
            range(rank * config.grad_accum_steps, (rank + 1) * config.grad_accum_steps),
            parts,
        )
        self.waited = 0.0
        self._pool = ThreadPoolExecutor(1, "loader")
        self._coming: deque[tuple[int, list[Future[Part]]]] = deque()
        self._cuda = self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if self._cuda else None
        self._ask(start)

    def parts(self, step: int) -> list[Tensor]:
        """The parts of a step, batch_size / (world * grad_accum_steps) samples each, on the device; of images
        uint8 [b, 3, S, S].

        Raises what reading them raised.
        """
        began = time.perf_counter()
        if not self._coming or self._coming[0][0] != step:
            self._drop()
        self._ask(step)
        try:
            parts = [future.result() for future in self._coming.popleft()[1]]
        except BaseException:
            self._drop()  # asked again, steps are read again
            raise
        self.waited += time.perf_counter() - began
        return [self._usable(part) for part in parts]

    def close(self) -> None:
        """End the thread, at once but for the part that it is at."""
        self._drop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, step: int) -> None:
        """Have the steps from `step` to AHEAD later read, but none after the last of the run."""
        after = self._coming[-1][0] + 1 if self._coming else step
        for coming in range(after, max(step + 1, min(step + AHEAD + 1, self.config.steps))):
            self._coming.append((coming, [self._pool.submit(self._read, coming, m) for m in self.mine]))

    def _drop(self) -> None:
        while self._coming:
            for future in self._coming.pop()[1]:
                future.cancel()

    def _read(self, step: int, part: int) -> Part:
        config = self.config
        images = self.images.train_batch(step, config.batch_size, config.seed, part, self.all, pin=self._cuda)
        if not self._cuda:
            return Part(images.to(self.device), None)
        with torch.cuda.stream(self._stream):  # beside what the GPU computes
            images = images.to(self.device, non_blocking=True)
            return Part(images, self._stream.record_event())

    def _usable(self, part: Part) -> Tensor:
        """A part that the current stream of the GPU may use, once its copy is done."""
        if part.ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(part.ready)
            part.images.record_stream(stream)
        return part.images
