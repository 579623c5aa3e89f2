"""Everything that a training step changes: what a checkpoint must hold, and nothing else."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field
from typing import Generic

import torch
from torch import nn
from torch.optim import Optimizer

from tok1d.training.optim import build_optimizers
from tok1d.training.parallelize import shard, to_local
from tok1d.training.task import Model, Task


@dataclass
class State(Generic[Model]):
    task: Task[Model]  # with the model, and the objective
    ema: Model  # the model with averaged weights: what is evaluated and saved
    model_optimizers: list[Optimizer]  # of the model, and of what learns with it
    discriminator_optimizer: Optimizer | None
    counts: dict[str, float] = field(
        default_factory=lambda: {
            "step": 0,  # steps done, the skipped ones too
            "seconds": 0.0,  # of training, over all starts
            "skipped": 0,  # steps without a finite gradient
            "nonfinite_streak": 0,  # of them, up to now
            "rollbacks": 0,  # times that training went back to a checkpoint, with a lower learning rate
        }
    )

    @classmethod
    def new(cls, task: Task[Model], device: torch.device) -> State[Model]:
        """The state before the first step of a task that is built, on `device`."""
        ema = copy.deepcopy(task.model).requires_grad_(False).to(device)
        task.objective.to(device)
        task.network = task.model.to(device)
        for model in (task.model, ema):
            shard(model, task.blocks(model), task.config, device)
        optimizers = build_optimizers(task.param_groups(), task.config)
        return cls(task, ema, optimizers, task.discriminator_optimizer())

    @property
    def model(self) -> Model:
        return self.task.model

    @property
    def objective(self) -> nn.Module:
        return self.task.objective

    @property
    def step(self) -> int:
        return int(self.counts["step"])

    @property
    def optimizers(self) -> list[Optimizer]:
        last = self.discriminator_optimizer
        return self.model_optimizers if last is None else [*self.model_optimizers, last]

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the averaged weights towards the model's; what is counted, not learned, is copied."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        averaged, learned = self._parameters
        torch._foreach_lerp_(to_local(averaged), to_local(learned), 1 - decay)
        for mine, its in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            mine.copy_(its)

    @functools.cached_property
    def _parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Averaged and learned ones; to look for them in each step takes a twentieth of a small one."""
        return list(self.ema.parameters()), list(self.model.parameters())

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "ema": self.ema, "objective": self.objective}
