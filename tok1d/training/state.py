"""Everything that a training step changes: what a checkpoint must hold, and nothing else."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer

from tok1d.config.schema import TrainConfig
from tok1d.losses.objective import Objective
from tok1d.models.tokenizer import Tokenizer
from tok1d.training.optim import build_optimizers, discriminator_optimizer
from tok1d.training.parallelize import shard, to_local


@dataclass
class State:
    model: Tokenizer
    ema: Tokenizer  # averaged weights: what is evaluated and saved
    objective: Objective
    optimizers: list[Optimizer]  # of the model (and of an alignment head), then of the discriminator
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
    def new(cls, model: Tokenizer, config: TrainConfig, device: torch.device) -> State:
        """The state before the first step, on `device`."""
        ema = copy.deepcopy(model).requires_grad_(False).to(device)
        objective = Objective(model, config).to(device)
        model = model.to(device)
        for each in (model, ema):
            shard(each, config, device)
        optimizers = build_optimizers(model, config, objective.alignment)
        if objective.discriminator is not None:
            optimizers.append(discriminator_optimizer(objective.discriminator, config))
        return cls(model, ema, objective, optimizers)

    @property
    def step(self) -> int:
        return self.counts["step"]

    @property
    def model_optimizers(self) -> list[Optimizer]:
        return self.optimizers[:-1] if self.objective.discriminator is not None else self.optimizers

    @property
    def discriminator_optimizer(self) -> Optimizer | None:
        return self.optimizers[-1] if self.objective.discriminator is not None else None

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the averaged weights towards the model's; what is counted, not learned, is copied."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(to_local(self.ema.parameters()), to_local(self.model.parameters()), 1 - decay)
        for mine, its in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            mine.copy_(its)

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "ema": self.ema, "objective": self.objective}
