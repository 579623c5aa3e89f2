"""`last.ckpt`, to continue from, `previous.ckpt`, should that be damaged, and `model/`, to use and share."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import torch

from tok1d.runs import Run, RunError, writes
from tok1d.system.files import remedy, replacing
from tok1d.training.parallelize import full_tensors, shard_like
from tok1d.training.state import State


def save_checkpoint(run: Run, state: State) -> None:
    """Write `last.ckpt`; the one before stays as `previous.ckpt`. Raises `RunError` when it cannot."""
    content = {name: module.state_dict() for name, module in state.modules().items()}
    content = full_tensors(content | {"optimizers": [o.state_dict() for o in state.optimizers]})
    content["counts"] = state.counts
    if not writes():
        return
    with writable(run, f"the checkpoint of step {state.step}"), replacing(run / "last.ckpt") as temporary:
        with open(temporary, "wb") as file:  # by itself torch would not say why it cannot
            torch.save(content, file)
        keep_previous(run)


def keep_previous(run: Run) -> None:
    """Make the `last.ckpt` that is about to be replaced `previous.ckpt`, without ever having neither."""
    if (run / "last.ckpt").exists():
        with replacing(run / "previous.ckpt") as temporary:
            try:
                os.link(run / "last.ckpt", temporary)
            except OSError:  # exFAT, SMB and others have no links
                shutil.copyfile(run / "last.ckpt", temporary)


def load_checkpoint(run: Run, state: State) -> bool:
    """Fill `state` from `last.ckpt`, or if that is damaged from `previous.ckpt`; False if there is neither.

    Raises `RunError` if none that is there can be used.
    """
    failures = []
    for path in (run / "last.ckpt", run / "previous.ckpt"):
        if path.exists():
            try:
                _fill(state, torch.load(path, map_location="cpu", weights_only=True))
            except Exception as error:
                why = (str(error).splitlines() or [type(error).__name__])[0][:120]
                failures.append(f"{path} cannot be continued from ({why})")
                continue
            damaged = f"{failures[0]}: " if failures else ""
            print(f"{damaged}continuing {run.path} from step {state.step}")
            return True
    if failures:
        raise RunError(f"{failures[0]}: delete {run.path} to start this run again")
    return False


def _fill(state: State, content: dict) -> None:
    for name, module in state.modules().items():
        module.load_state_dict(shard_like(content[name], module.state_dict()))
    for optimizer, its in zip(state.optimizers, content["optimizers"], strict=True):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for i, moments in its["state"].items():
            its["state"][i] = shard_like(moments, dict.fromkeys(moments, parameters[i]))
        optimizer.load_state_dict(its)
    old = {"in_a_row": "nonfinite_streak", "setbacks": "rollbacks"}  # names in checkpoints of before
    state.counts |= {old.get(name, name): value for name, value in content["counts"].items()}


def save_model(run: Run, state: State) -> None:
    """Write `model/`, the averaged weights: the run is trained. Raises `RunError` when it cannot."""
    weights = full_tensors(state.ema.state_dict())
    if not writes():
        return
    with writable(run, "the model"), replacing(run / "model") as temporary:
        state.task.save(weights, temporary)


@contextlib.contextmanager
def writable(run: Run, what: str) -> Iterator[None]:
    """Turn a full disk, or one that cannot be written, into one sentence."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save speaks of a full disk as a RuntimeError
        raise RunError(
            f"{what} cannot be written to {run.path} {remedy(error, run.path)}; "
            f"the same command continues from the last checkpoint"
        ) from error
