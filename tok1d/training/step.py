"""One training step: forward, the losses, backward, the optimizers, the averaged weights.

A batch may come in parts (`grad_accum_steps`) and on several processes; the step is that of the whole batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tok1d.config.schema import TrainConfig
from tok1d.data.dataset import to_float
from tok1d.distributed import average_gradients
from tok1d.losses.objective import ramp
from tok1d.training.logbook import gradient_norms, statistics, summarize
from tok1d.training.parallelize import average_unsharded_gradients, no_sync, norm, to_local
from tok1d.training.state import State


def train_step(
    state: State,
    network: nn.Module,
    parts: list[Tensor],
    num_tokens: int,
    config: TrainConfig,
    accelerator: Accelerator,
    logged: bool,
    before_update: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Take one step; `network` is `state.model` as wrapped for several processes, `parts` are uint8 images.

    A step whose gradient is not finite changes no weight and is counted. Returns the record of the step if it
    is to be `logged`.
    """
    state.model.train()
    state.objective.train()
    state.model.quantizer.entropy_weight = ramp(
        config.entropy_weight, config.entropy_weight_end, state.step, config.entropy_decay_steps
    )
    numbers = []
    for number, part in enumerate(parts, 1):
        images = to_float(part)
        with contextlib.nullcontext() if number == len(parts) else no_sync(network):
            with accelerator.autocast():
                output = network(images, num_tokens)
                loss, terms = state.objective(output, images, state.step, state.model.decoder.last_layer)
            (loss / len(parts)).backward()
        if state.objective.playing(state.step):
            with accelerator.autocast():
                loss, more = state.objective.discriminator_loss(output.images, images)
            (loss / len(parts)).backward()
            terms |= more
        if logged:
            numbers.append(terms | statistics(output, images, codebook_size(state)))
    average_unsharded_gradients(network)
    average_gradients(state.objective.parameters())
    record = summarize(numbers) | gradient_norms(state.model) if logged else {}
    before_update()
    grad_norm = update(state, config)
    return record | {"grad_norm": grad_norm} if logged else {}


def update(state: State, config: TrainConfig) -> float:
    """Clip the gradients and move the weights, unless a gradient is not finite; returns the model's norm."""
    grad_norm = clip(state.model_optimizers, config.grad_clip)
    finite = math.isfinite(grad_norm)
    if finite and state.objective.playing(state.step):
        finite = math.isfinite(clip([state.discriminator_optimizer], config.grad_clip))
    if finite:
        for optimizer in state.model_optimizers:
            optimizer.step()
        if state.objective.playing(state.step):
            state.discriminator_optimizer.step()
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


def codebook_size(state: State) -> int:
    return state.model.quantizer.codebook_size
