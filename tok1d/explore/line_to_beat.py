"""What arithmetic makes of as many bits, beside a picture of one's own."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from torch import Tensor

from tok1d.data.dataset import to_uint8
from tok1d.evaluation.evaluate import reconstruct
from tok1d.evaluation.runs import linear_code
from tok1d.models.linear import LinearTokenizer
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run, RunError


def linear_rows(
    where: str, tokenizer: Any, originals: Tensor, counts: tuple[int, ...]
) -> dict[int | None, Tensor]:
    """uint8 [B, 3, S, S] by the linear code of equal bits at each count: the tokenizer's own before it is
    refined, or the one that its run was measured beside, if the training images are still here; else, and of
    peers, {}.
    """
    if not isinstance(tokenizer, Tokenizer):
        return {}
    if isinstance(tokenizer.encoder, LinearTokenizer):
        ids = tokenizer.encode(originals.to(tokenizer.device))
        rows: dict[int | None, Tensor] = {
            k: to_uint8(tokenizer.encoder.decode_ids(ids[:, :k])).cpu() for k in counts
        }
        return rows if tokenizer.refine is not None else {}
    run = Run(Path(where).expanduser())
    with contextlib.suppress(RunError):
        if run.evaluation.get("linear_code") and (code := linear_code(run, tokenizer.config, counts)):
            return reconstruct(code, originals, counts)
    return {}
