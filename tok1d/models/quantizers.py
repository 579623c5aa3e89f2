"""Quantizers by name: continuous tokens in, tokens of a few possible values out. One contract for all:

    codes, ids, loss, terms = quantizer(z)  # z [B, K, in_dim] -> codes [B, K, dim], ids [B, K] int64
    codes = quantizer.decode_ids(ids)       # ids [B, K] -> the same codes, bit for bit

`loss` is what the quantizer itself wants minimised, `terms` what is in it, to be logged. Everything inside is
float32. The mean over a batch is over all processes' parts of it; what a step changes is in parameters and
buffers. Two are continuous: softvq's ids decode to each token's strongest code only, and kl has none.

| name   | tokens                            | bits a token        | gradient                      |
|--------|-----------------------------------|---------------------|-------------------------------|
| fsq    | a few rounded numbers             | log2 of Π levels    | straight-through              |
| lfq    | signs, on the unit sphere         | log2 codebook_size  | straight-through              |
| vq     | nearest code on the unit sphere   | log2 codebook_size  | straight-through or rotation  |
| vq_ema | the same, codes are running means | log2 codebook_size  | straight-through or rotation  |
| simvq  | nearest of fixed codes × a matrix | log2 codebook_size  | straight-through or rotation  |
| softvq | a mix of codes                    | 32 codebook_dim     | its own                       |
| kl     | a draw from a Gaussian            | 32 codebook_dim     | its own                       |
"""

from __future__ import annotations

from collections.abc import Callable

from tok1d.config.schema import TokenizerConfig
from tok1d.models.quantizer_base import NO_IDS, Quantized, Quantizer
from tok1d.models.quantizer_codebook import VQ, VQEMA, SimVQ
from tok1d.models.quantizer_continuous import KL, SoftVQ
from tok1d.models.quantizer_scalar import FSQ, LFQ

__all__ = [
    "FSQ", "KL", "LFQ", "NO_IDS", "QUANTIZERS", "VQ", "VQEMA", "Quantized", "Quantizer", "SimVQ", "SoftVQ",
    "build_quantizer",
]  # fmt: skip

QUANTIZERS: dict[str, Callable[[TokenizerConfig], Quantizer]] = {
    "fsq": lambda c: FSQ(c.fsq_levels),
    "vq": lambda c: VQ(
        c.codebook_size, c.codebook_dim, c.commitment_weight, c.rotation_trick, c.entropy_temperature
    ),
    "vq_ema": lambda c: VQEMA(
        c.codebook_size, c.codebook_dim, c.commitment_weight, c.rotation_trick, c.codebook_decay
    ),
    "lfq": lambda c: LFQ(c.codebook_size, c.commitment_weight),
    "simvq": lambda c: SimVQ(c.codebook_size, c.codebook_dim, c.commitment_weight, c.rotation_trick),
    "softvq": lambda c: SoftVQ(c.codebook_size, c.codebook_dim, c.softvq_temperature),
    "kl": lambda c: KL(c.codebook_dim, c.kl_weight),
}


def build_quantizer(config: TokenizerConfig) -> Quantizer:
    return QUANTIZERS[config.quantizer](config)
