"""`last.ckpt`, to continue from, and `model/`, to use and share."""

from __future__ import annotations

import torch

from tok1d.runs import Run, RunError, replacing
from tok1d.tokenizer import Tokenizer


def save_checkpoint(
    run: Run, step: int, model: Tokenizer, ema: Tokenizer, optimizers: list, seconds: float
) -> None:
    state = dict(
        step=step, seconds=seconds, model=model.state_dict(), ema=ema.state_dict(),
        optimizers=[optimizer.state_dict() for optimizer in optimizers],
    )  # fmt: skip
    with replacing(run / "last.ckpt") as temporary:
        torch.save(state, temporary)


def load_checkpoint(run: Run, model: Tokenizer, ema: Tokenizer, optimizers: list) -> tuple[int, float]:
    """Fill everything from `last.ckpt`; returns (steps done, seconds spent), (0, 0) where there is none."""
    path = run / "last.ckpt"
    if not path.exists():
        return 0, 0.0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        for optimizer, optimizer_state in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
    except Exception as error:
        raise RunError(
            f"{path} cannot be continued from ({str(error).splitlines()[0]}): "
            f"delete it to start this run again"
        ) from error
    print(f"continuing {run.path} from step {state['step']}")
    return state["step"], state["seconds"]


def save_model(run: Run, model: Tokenizer) -> None:
    with replacing(run / "model") as temporary:
        model.save_pretrained(temporary)
