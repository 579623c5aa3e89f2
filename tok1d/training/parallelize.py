"""One model on several devices: a copy on each (DDP), or the blocks' weights in pieces (FSDP2).

`parallel: fsdp` shards a task's transformer blocks, with their averaged weights and the optimizer's moments;
nearly all weights are there. The rest (embeddings, heads, a tokenizer's quantizer) stays whole in every
process, so losses and quantizers meet ordinary tensors. Checkpoints hold whole tensors either way, so a
run may go on with another `parallel`, on another number of devices.

And on one: compiled blocks, recomputed activations, channels-last images. Nothing of that changes what is
computed beyond rounding; attention is PyTorch's own (SDPA) through timm, both optimizers are fused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from tok1d.config.schema import LoopConfig
from tok1d.distributed import average_gradients, world_size

VARIANTS = 64  # sequence lengths (an elastic tokenizer's token counts) that one block is compiled for


def apply_compile_and_recompute(
    model: nn.Module, blocks: Iterable[nn.Module], convolutional: Iterable[nn.Module], config: LoopConfig
) -> None:
    """Prepare a training's networks in place; to be called once, before they are wrapped or used.

    Of `model`, each network with a `recompute` is told whether to; `convolutional` ones get their channels
    last, and `blocks` are compiled.
    """
    for module in model.modules():
        if hasattr(module, "recompute"):
            setattr(module, "recompute", config.activation_checkpointing)  # noqa: B010
    for module in convolutional:
        module.to(memory_format=torch.channels_last)
    if config.compile:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
        for block in blocks:
            compile_block(block)


def compile_block(block: nn.Module) -> None:
    """Compile one transformer block. All blocks of a size share the code that the first one's compilation
    made, so this takes seconds where compiling whole networks takes minutes.
    """
    block.compile(dynamic=False)


def shard(model: nn.Module, blocks: list[nn.Module], config: LoopConfig, device: torch.device) -> None:
    """Cut the `blocks` of a model on `device` into a piece for each process, in place, if that is asked for;
    before its optimizers are built.
    """
    if config.parallel != "fsdp" or not dist.is_initialized():
        return
    # It warns of changes in place to what a block returns: there are none.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device.type, (world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    of_blocks = {p for block in blocks for p in block.parameters()}
    fully_shard(model, mesh=mesh, ignored_params=set(model.parameters()) - of_blocks)


def wrap(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The module to call in training: its gradients are means over all processes, after
    `average_unsharded_gradients`.
    """
    if world_size() == 1 or isinstance(model, FSDPModule):
        return model
    devices = [accelerator.device] if accelerator.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


def no_sync(network: nn.Module) -> AbstractContextManager:
    """Backward passes whose gradients only add up in their own process, for all parts of a batch but its
    last.
    """
    if isinstance(network, FSDPModule):
        return _unsharded_gradients(network)
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def _unsharded_gradients(network: FSDPModule):
    network.set_requires_gradient_sync(False)
    yield
    network.set_requires_gradient_sync(True)


def average_unsharded_gradients(network: nn.Module) -> None:
    """What FSDP leaves to us: the mean over processes of the gradients of what is not in pieces."""
    if isinstance(network, FSDPModule):
        average_gradients(p for p in network.parameters() if not isinstance(p, DTensor))


# ---- tensors in pieces ----


def to_local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each, as ordinary tensors that share its memory."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


@torch.no_grad()
def norm(tensors: Iterable[Tensor]) -> float:
    """The L2 norm of all of them together, the same in every process."""
    tensors = list(tensors)
    if not tensors:
        return 0.0
    sharded = [t for t in tensors if isinstance(t, DTensor)]
    replicated = torch.nn.utils.get_total_norm([t for t in tensors if not isinstance(t, DTensor)])
    if not sharded:
        return replicated.item()
    square = torch.nn.utils.get_total_norm(to_local(sharded)).square()
    dist.all_reduce(square)
    return (replicated.square() + square).sqrt().item()


def full_tensors(tree: Any) -> Any:
    """State dicts with every tensor whole; to be called in all processes alike."""
    return pytree.tree_map_only(DTensor, DTensor.full_tensor, tree)


def shard_like(values: Mapping[Any, Any], targets: Mapping[Any, Any]) -> dict[Any, Any]:
    """`values` (whole) with the tensors of those `targets` that are in pieces cut like them."""

    def cut(value: Tensor, target: Any) -> Tensor:
        if not isinstance(target, DTensor) or value.shape != target.shape:
            return value
        value = value.to(target.device, target.dtype)
        return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)

    return {name: cut(value, targets.get(name)) for name, value in values.items()}
