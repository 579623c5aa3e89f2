"""The bridge report: what became of every tensor of a peer's file, and whether images survive the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tok1d.models.pretrained import Row, shape

TRAINED_WITH = {  # what a checkpoint may hold beside the tokenizer
    "quantize.embed_prob": "how often each code was used, for training alone",
}
DOUBTFUL = 15.0  # dB; below it another range of inputs is tried
TESTED = 8  # images of the self-test


def sort_tensors(
    state: Mapping[str, Tensor], network: nn.Module, notes: Mapping[str, str], others: list[str]
) -> tuple[dict[str, Tensor], list[Row]]:
    """The tensors that `network` (its shapes) takes, as float32, and a row for each of both. `notes` say
    where a tensor came from, `others` are names that were left out.
    """
    own, rows, kept = network.state_dict(), [], {}
    for name, tensor in state.items():
        if name in TRAINED_WITH:
            rows.append(Row(name, "dropped", TRAINED_WITH[name]))
        elif name not in own:
            rows.append(Row(name, "unexpected", f"{shape(tensor)}: the network has no such tensor"))
        elif tensor.shape != own[name].shape:
            rows.append(Row(name, "wrong shape", f"{shape(tensor)} in the file, not {shape(own[name])}"))
        else:
            kept[name] = tensor.float()
            cast = "" if tensor.dtype == torch.float32 else f"from {str(tensor.dtype).removeprefix('torch.')}"
            rows.append(Row(name, "loaded", "; ".join(filter(None, (notes.get(name, ""), cast)))))
    rows += [
        Row(name, "missing", f"{shape(own[name])}: not in the file") for name in own if name not in state
    ]
    rows += [Row(name, "dropped", "beside the tokenizer's tensors, under another prefix") for name in others]
    return kept, rows


@torch.no_grad()
def self_test(peer: Any, images: Tensor) -> dict[str, Any]:
    """PSNR (dB) of images [B, 3, S, S] in 0 … 1 through a peer; where it is below 15, also of what comes back
    if they are given and taken as -1 … 1.
    """
    psnr = _psnr(images, peer.decode(peer.encode(images)))
    found: dict[str, Any] = {"images": len(images), "psnr": psnr}
    if psnr >= DOUBTFUL:
        return found
    other = _psnr(images, peer.decode(peer.encode(images * 2 - 1)) / 2 + 0.5)
    doubt = "images do not come back in either range: these weights were never trained, or not on such images"
    if other >= DOUBTFUL:
        doubt = "images come back better as -1 … 1: these are not weights of this format"
    return found | {"psnr_of_-1_…_1": other, "doubt": doubt}


def _psnr(images: Tensor, restored: Tensor) -> float:
    """Over all of them, of clamped pixels."""
    error = (images - restored.float().clamp(0, 1)).square().mean().item()
    return round(-10 * math.log10(max(error, 1e-10)), 2)
