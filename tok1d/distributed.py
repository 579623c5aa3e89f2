"""Several processes that train one model: what each must know of the others.

One process, or many, must compute the same: the mean of a batch is over all processes' parts of it, and a
gradient too. Without `torch.distributed` everything here is the identity.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """The one process that prints and writes files."""
    return world_size() == 1 or dist.get_rank() == 0


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of `value` over all processes; gradients flow back to each."""
    return all_reduce(value.contiguous()) / world_size() if world_size() > 1 else value


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over all processes, in one message; for modules outside of DDP."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not grads:
        return
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    for grad, mean in zip(grads, (flat / world_size()).split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


@torch.no_grad()
def from_main(value: Tensor) -> Tensor:
    """The main process's `value` in every process, overwriting their own; for what is drawn at random."""
    if world_size() > 1:
        dist.broadcast(value, 0)
    return value


@torch.no_grad()
def whole_batch(part: Tensor) -> Tensor:
    """Every process's part [B, ...] of a batch -> the batch of a single process, [B · processes, ...].

    Parts are interleaved, as `Images.train_batch` deals them.
    """
    if world_size() == 1:
        return part
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


def own_part(batch: Tensor) -> Tensor:
    """This process's part [B, ...] of `whole_batch`."""
    return batch[dist.get_rank() :: world_size()] if world_size() > 1 else batch
