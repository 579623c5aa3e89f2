"""Several processes that train one model: what each must know of the others.

One process, or many, must compute the same: the mean of a batch is over all processes' parts of it, and a
gradient too. Without `torch.distributed` everything here is the identity.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

from tok1d.system.launch import launched, number


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """The one process that prints and writes files."""
    return world_size() == 1 or dist.get_rank() == 0


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of `value` over all processes; gradients flow back to each."""
    return _Sum.apply(value) / world_size() if world_size() > 1 else value


class _Sum(torch.autograd.Function):
    """The sum over processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(_: object, value: Tensor) -> Tensor:
        value = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        return _Sum.forward(_, gradient)


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
def broadcast_from_main(value: Tensor) -> Tensor:
    """The main process's `value` in every process, overwriting their own; for what is drawn at random."""
    if world_size() > 1:
        dist.broadcast(value, 0)
    return value


@torch.no_grad()
def gather_batch(part: Tensor) -> Tensor:
    """Every process's part [B, ...] of a batch -> the batch of a single process, [B · processes, ...].

    Parts are interleaved, as `Images.train_batch` deals them.
    """
    if world_size() == 1:
        return part
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


def local_part(batch: Tensor) -> Tensor:
    """This process's part [B, ...] of `gather_batch`."""
    return batch[dist.get_rank() :: world_size()] if world_size() > 1 else batch


# ---- joining, leaving, agreeing ----
PATIENCE = timedelta(days=7)  # decoding a large data set keeps the others waiting for hours
_agreements: list[dist.ProcessGroup] = []  # one group, on the CPU whatever device trains: it waits for no GPU


class Stopped(KeyboardInterrupt):
    """Training ended when it was asked to, in all processes alike, with a checkpoint to go on from."""

    def __init__(self, step: int, steps: int):
        super().__init__(step, steps)
        self.place = f"stopped at step {step} of {steps}"

    def __str__(self) -> str:
        return f"{self.place}; the same command continues from there"

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows, instead of the stack of calls."""
        return [f"{self.place}; Run All continues from there"]


class FailedOnOtherRank(RuntimeError):
    """Another process of this run failed, and has said why."""


# What accelerate takes as a sign of several processes
LAUNCHERS = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "PMI_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE",
)  # fmt: skip
SOON = 2.0  # seconds without the other processes after which it is said that they are waited for


def _join() -> None:
    """Wait for all processes. Says on stderr which are waited for, if they do not come soon."""
    rank, count = os.environ["RANK"], number(os.environ["WORLD_SIZE"])
    where = f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{os.environ.get('MASTER_PORT', '29500')}"
    others = [str(other) for other in range(count) if str(other) != rank]
    whom = ", ".join(others) if len(others) < 8 else f"{others[0]} … {others[-1]}"
    left_over = [name for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS") if os.environ.get(name)]
    what = (
        f"RANK={rank} of WORLD_SIZE={count} {{}} at {where} for RANK={whom}; if nobody started those, "
        f"type 'unset {' '.join(left_over)}' and start this one again"
    )
    patience = threading.Timer(SOON, lambda: print(what.format("waits"), file=sys.stderr, flush=True))
    patience.daemon = True
    patience.start()
    try:
        PartialState(cpu=not torch.cuda.is_available())
    except (RuntimeError, ValueError) as error:  # torch's patience is half an hour
        why = str(error).split("\n")[0][:100]
        print(f"tok1d: {what.format(f'has waited in vain ({why})')}", file=sys.stderr, flush=True)
        raise FailedOnOtherRank(f"{type(error).__name__}: {error}") from error
    finally:
        patience.cancel()


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that a launcher started, and leave them at the end; alone, or again, do nothing.

    Only the main one prints. If one fails the others raise `FailedOnOtherRank`, so that it is said once.
    """
    if world_size() > 1:
        yield
        return
    alone = not launched()
    for name in LAUNCHERS:
        if alone or not os.environ.get(name):  # of another launcher, of one process, or empty
            os.environ.pop(name, None)
    if alone:
        yield
        return
    _join()
    try:
        with contextlib.nullcontext() if is_main() else contextlib.redirect_stdout(io.StringIO()):
            yield
    except Stopped:
        _leave()
        raise
    except Exception as error:  # no goodbye: the others may be in no state to hear it
        if isinstance(error, FailedOnOtherRank) or not _first_to_fail():
            raise FailedOnOtherRank(f"{type(error).__name__}: {error}") from error
        raise
    _leave()


def _leave() -> None:
    all_ranks(True)
    dist.destroy_process_group()
    PartialState._reset_state()
    _agreements.clear()


def _first_to_fail() -> bool:
    try:
        return dist.distributed_c10d._get_default_store().add("tok1d failed", 1) == 1
    except RuntimeError:  # the store went with the main process
        return False


def _group() -> dist.ProcessGroup:
    if not _agreements:
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(group, dist.ProcessGroup)  # every process is a member
        _agreements.append(group)
    return _agreements[0]


def all_ranks(value: bool) -> bool:
    """Whether `value` holds in every process. All wait here for the last."""
    if world_size() == 1:
        return value
    flag = torch.tensor(int(value))
    dist.all_reduce(flag, dist.ReduceOp.MIN, _group())
    return bool(flag)


def any_rank(value: bool) -> bool:
    """Whether `value` holds in some process. All wait here for the last."""
    return not all_ranks(not value)


def equal_on_all_ranks(number: int) -> bool:
    """Whether `number` is the same in every process. All wait here for the last."""
    if world_size() == 1:
        return True
    least = torch.tensor([number, -number])
    dist.all_reduce(least, dist.ReduceOp.MIN, _group())
    return least[0].item() == -least[1].item()


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """The main process goes through the block first, then one of each other node, then the rest.

    So what one writes to a folder the others find there. If it fails in one, the later ones raise
    `FailedOnOtherRank`.
    """
    turns = (is_main(), int(os.environ.get("LOCAL_RANK", 0)) == 0, True) if world_size() > 1 else (True,)
    mine, done = turns.index(True), False
    for _ in turns[:mine]:
        _go_on(True)
    try:
        yield
        done = True
    finally:
        with contextlib.nullcontext() if done else contextlib.suppress(FailedOnOtherRank):
            for _ in turns[mine:] if done else turns[:1]:
                _go_on(done)


def _go_on(done: bool) -> None:
    if not all_ranks(done):
        raise FailedOnOtherRank("another process failed")
