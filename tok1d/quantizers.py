"""Quantizers: continuous tokens in, discrete tokens out. One contract for all of them:

    codes, ids, loss = quantizer(z)        # z [B, K, dim] -> codes [B, K, dim], ids [B, K] int64, loss scalar
    codes = quantizer.decode_ids(ids)      # ids [B, K] -> the same codes, bit for bit

Gradients reach `z` by the straight-through estimator. `loss` is what the quantizer itself wants minimised (0
for FSQ).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ as _FSQ

from tok1d.config import TokenizerConfig


class Quantized(NamedTuple):
    codes: Tensor  # [B, K, dim]
    ids: Tensor  # [B, K] int64, 0 … codebook_size - 1
    loss: Tensor  # scalar
    terms: dict[str, Tensor] = {}  # noqa: RUF012


class FSQ(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023, arXiv:2309.15505): rounding each of a few bounded
    numbers.

    Nothing to learn and nothing to collapse. `levels` are the values per dimension; their product is the
    codebook size.
    """

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.fsq = _FSQ(levels=list(levels))
        self.dim, self.codebook_size = len(levels), self.fsq.codebook_size

    def forward(self, z: Tensor) -> Quantized:
        codes, ids = self.fsq(z)
        return Quantized(codes, ids.long(), z.new_zeros(()))

    def decode_ids(self, ids: Tensor) -> Tensor:
        return self.fsq.indices_to_codes(ids)


class VQ(nn.Module):
    """The seed's vector quantizer: codes and codebook on the unit sphere (as in ViT-VQGAN, arXiv:2110.04627).

    loss = ‖sg[z] - e‖² + commitment ‖z - sg[e]‖² + entropy_weight (mean per-sample entropy - batch entropy),
    where the entropies are of softmax(similarity / temperature) (MAGVIT-v2, arXiv:2310.05737): tokens should
    be sure of their code, and the batch should use all of them. The training loop moves `entropy_weight`
    along its schedule.
    """

    def __init__(
        self, codebook_size: int, dim: int, commitment_weight: float = 0.25, temperature: float = 0.01
    ):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))
        self.dim, self.codebook_size = dim, codebook_size
        self.commitment_weight, self.temperature, self.entropy_weight = commitment_weight, temperature, 0.0

    def forward(self, z: Tensor) -> Quantized:
        z = F.normalize(z.float(), dim=-1)  # [B, K, dim]
        codebook = F.normalize(self.codebook.float(), dim=-1)  # [V, dim]
        similarity = z @ codebook.T  # [B, K, V], the cosine
        ids = similarity.argmax(-1)
        codes = F.embedding(ids, codebook)
        loss = F.mse_loss(codes, z.detach()) + self.commitment_weight * F.mse_loss(z, codes.detach())
        if self.training and self.entropy_weight > 0:
            loss = loss + self.entropy_weight * self._entropy_loss(similarity.flatten(0, 1))
        return Quantized(z + (codes - z).detach(), ids, loss)

    def _entropy_loss(self, similarity: Tensor) -> Tensor:
        log_p = (similarity / self.temperature).log_softmax(-1)  # [B·K, V]
        per_sample = -(log_p.exp() * log_p).sum(-1).mean()
        mean_p = log_p.exp().mean(0)
        return per_sample + (mean_p * mean_p.clamp_min(1e-8).log()).sum()

    def decode_ids(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, F.normalize(self.codebook.float(), dim=-1))


def build_quantizer(config: TokenizerConfig) -> FSQ | VQ:
    if config.quantizer == "fsq":
        return FSQ(config.fsq_levels)
    return VQ(config.codebook_size, config.codebook_dim, config.commitment_weight)
