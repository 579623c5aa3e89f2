"""One training step of any task: forward, the losses, backward, the optimizers, the averaged weights.

A batch may come in parts (`grad_accum_steps`) and on several processes; the step is that of the whole batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor

from tok1d.distributed import average_gradients
from tok1d.training.logbook import gradient_norms, summarize
from tok1d.training.parallelize import average_unsharded_gradients, no_sync, norm, to_local
from tok1d.training.state import State


def train_step(
    state: State,
    parts: list[Tensor],
    accelerator: Accelerator,
    logged: bool,
    before_update: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Take one step of `state.task`; `parts` are those of a batch, as its data gave them.

    A step whose gradient is not finite changes no weight and is counted. Returns the record of the step if it
    is to be `logged`.
    """
    task = state.task
    task.model.train()
    task.objective.train()
    numbers = []
    for number, part in enumerate(parts, 1):
        batch = task.prepare(part)
        with contextlib.nullcontext() if number == len(parts) else no_sync(task.network):
            with accelerator.autocast():
                loss, terms, output = task.loss(batch, state.step)
            (loss / len(parts)).backward()
        if task.playing(state.step):
            with accelerator.autocast():
                loss, more = task.discriminator_loss(output, batch)
            (loss / len(parts)).backward()
            terms |= more
        if logged:
            numbers.append(terms | task.statistics(output, batch))
    average_unsharded_gradients(task.network)
    average_gradients(task.objective.parameters())
    record = summarize(numbers, task.summary) | gradient_norms(task.parts()) if logged else {}
    before_update()
    grad_norm = update(state)
    return record | {"grad_norm": grad_norm} if logged else {}


def update(state: State) -> float:
    """Clip the gradients and move the weights, unless a gradient is not finite; returns the model's norm."""
    config, discriminator = state.task.config, state.discriminator_optimizer
    if not state.task.playing(state.step):
        discriminator = None
    grad_norm = clip(state.model_optimizers, config.grad_clip)
    finite = math.isfinite(grad_norm)
    if finite and discriminator is not None:
        finite = math.isfinite(clip([discriminator], config.grad_clip))
    if finite:
        for optimizer in state.model_optimizers:
            optimizer.step()
        if discriminator is not None:
            discriminator.step()
        state.average(config.ema_decay)
    for optimizer in state.optimizers:
        optimizer.zero_grad()
    state.counts["skipped"] += not finite
    state.counts["nonfinite_streak"] = 0 if finite else state.counts["nonfinite_streak"] + 1
    return grad_norm


@torch.no_grad()
def clip(optimizers: list[torch.optim.Optimizer], largest: float) -> float:
    """Scale the gradients that these optimizers use to a norm of at most `largest`; returns it as it was."""
    parameters = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    grads = [p.grad for p in parameters if p.grad is not None]
    size = norm(grads)
    if size > largest:
        torch._foreach_mul_(to_local(grads), largest / (size + 1e-6))
    return size
