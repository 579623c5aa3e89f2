"""A tokenizer to play with, from wherever it is: a run folder, a model folder, the hub, or a peer's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tok1d.config.peers import is_peer
from tok1d.models.peers import load_peer
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run, RunError

SHIPPED = "outputs/published/toy-roads-64px"


def open_tokenizer(where: str | Path) -> Tokenizer:
    """The tokenizer of a run that is trained, of a model folder or a hub id, in eval mode, on the GPU if
    there is one. Raises `ConfigError`, `RunError`.
    """
    run = Run(Path(where).expanduser())
    if run.kind == "prior":
        raise RunError(f"{where} is a prior, not a tokenizer: type the run of its tokenizer")
    if (run / "params.yaml").is_file() and not run.has_model:
        raise RunError(
            f"{where} is still training, or was stopped: wait for it, continue it with 'tok1d run "
            f"notebooks/train.ipynb -f {run / 'params.yaml'}', or type {SHIPPED}"
        )
    tokenizer = Tokenizer.from_pretrained(run / "model" if run.has_model else where)
    return tokenizer.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def open_any(where: str | Path) -> Any:
    """The same, or a peer by `peer:NAME` or `peer:PATH`."""
    return load_peer(str(where)) if is_peer(str(where)) else open_tokenizer(where)


def facts_of(tokenizer: Any) -> tuple[tuple[int, ...], float]:
    """The token counts and the bits of a token, of ours or a peer's."""
    about = tokenizer.config if isinstance(tokenizer, Tokenizer) else tokenizer
    return about.token_counts, about.bits_per_token
