"""What all quantizers share: their contract, and what several of them compute.

    codes, ids, loss, terms = quantizer(z)  # z [B, K, in_dim] -> codes [B, K, dim], ids [B, K] int64
    codes = quantizer.ids_to_codes(ids)       # ids [B, K] -> the same codes, bit for bit

`loss` is what the quantizer itself wants minimized, `terms` what is in it, to be logged. Everything inside is
float32. The mean over a batch is over all processes' parts of it; what a step changes is in parameters and
buffers. Continuous ones decode their ids to each token's strongest code only, or have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from tok1d.config.schema import TokenizerConfig
from tok1d.distributed import mean_over_processes

NO_IDS = (
    "this quantizer has continuous tokens and no ids: take codes = tokenizer.encode_codes(images).codes and "
    "tokenizer.decode(codes), or train with quantizer=fsq for ids"
)


class Quantized(NamedTuple):
    codes: Tensor  # [B, K, dim] float32
    ids: Tensor | None  # [B, K] int64, 0 … codebook_size - 1; None: it has none
    loss: Tensor  # scalar
    terms: dict[str, Tensor]  # what is in `loss`, each a detached scalar without its weight, to be logged


class Quantizer(nn.Module):
    """z [B, K, in_dim] -> `Quantized`; float32 inside, whatever autocast is on around it.

    `in_dim` is `dim` unless it says otherwise, `codebook_size` is 0 if there are no ids. The training loop
    moves `entropy_weight` along its schedule, for those with an entropy loss.
    """

    def __init__(self, dim: int, codebook_size: int, in_dim: int | None = None):
        super().__init__()
        self.dim, self.in_dim, self.codebook_size = dim, in_dim or dim, codebook_size

    def forward(self, z: Tensor, entropy_weight: float = 0.0) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            return self.quantize(z.float(), entropy_weight)

    def ids_to_codes(self, ids: Tensor) -> Tensor:
        """ids [B, K] int64 -> codes [B, K, dim] float32."""
        with torch.autocast(ids.device.type, enabled=False):
            return self.look_up(ids)

    def codes_to_ids(self, codes: Tensor) -> Tensor:
        """The way back from `ids_to_codes`, where there is one."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> Quantizer:
        """The quantizer that `config` asks for."""
        raise NotImplementedError

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        """float32 z [B, K, in_dim]; `forward` says the rest."""
        raise NotImplementedError

    def look_up(self, ids: Tensor) -> Tensor:
        raise NotImplementedError


QUANTIZER_CLASSES: dict[str, type[Quantizer]] = {}
Kind = TypeVar("Kind", bound=type[Quantizer])


def register(name: str) -> Callable[[Kind], Kind]:
    """A decorator: the class is `quantizer=name`, a row of `tok1d.config.registry.QUANTIZERS`."""

    def add(kind: Kind) -> Kind:
        QUANTIZER_CLASSES[name] = kind
        return kind

    return add


def straight_through(z: Tensor, codes: Tensor, rotate: bool = False) -> Tensor:
    """Exactly `codes`, with gradients that go to `z`: [B, K, dim] each.

    They arrive unchanged (arXiv:1308.3432), or with `rotate` turned and scaled as `z` must be to become its
    code (arXiv:2410.06424). The usual z + (codes - z) would round, and ids would not decode to the same bits.
    """
    path = rotate_to(z, codes.detach()) if rotate else z
    return codes.detach() + (path - path.detach())


def entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy (nats) of a token's choice of code, the mean over tokens, and that of the whole batch's choice.

    logits [N, V] of softmax; the batch is that of all processes. MAGVIT-v2 (arXiv:2310.05737) minimizes their
    difference: tokens should be sure of their code, and the batch should use all of them.
    """
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    return -(p * log_p).sum(-1).mean(), entropy(mean_over_processes(p.mean(0)))


def entropy(p: Tensor) -> Tensor:
    """Entropy (nats) of one distribution, of any shape."""
    return -(p * p.clamp_min(1e-8).log()).sum()


def entropy_terms(sample: Tensor, batch: Tensor) -> dict[str, Tensor]:
    return {"entropy_sample": sample.detach(), "entropy_batch": batch.detach()}


def unit(x: Tensor) -> Tensor:
    """Every vector [..., dim] at length 1."""
    return F.normalize(x, dim=-1)
