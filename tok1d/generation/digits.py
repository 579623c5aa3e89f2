"""Token ids as digits, so that neither an embedding nor a softmax is as wide as a large codebook.

FSQ's 64,000 codes are six numbers of 8, 8, 8, 5, 5, 5 values, LFQ's 2¹⁶ sixteen bits: a prior that knows
digits has 39, or 32, embeddings and outputs instead. Codebooks without such a structure are one digit.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from tok1d.config.registry import QUANTIZERS, number_of_codes
from tok1d.config.schema import TokenizerConfig


def levels_of(config: TokenizerConfig, factorized: bool = True) -> tuple[int, ...]:
    """How many values each digit of a token has; not `factorized`: one digit as large as the codebook."""
    if factorized and config.quantizer == "fsq":
        return config.fsq_levels
    if factorized and config.quantizer == "lfq":
        return (2,) * (config.codebook_size.bit_length() - 1)
    return (number_of_codes(config.quantizer, dict(config)),)


def has_ids(config: TokenizerConfig) -> bool:
    return not QUANTIZERS[config.quantizer].continuous


class Digits(nn.Module):
    """The mixed-radix digits of ids, the first one changing fastest; `starts` is where each digit's values
    begin among all of them.
    """

    radix: Tensor  # [D]
    bases: Tensor  # [D]
    starts: Tensor  # [D]

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.levels, self.total = levels, sum(levels)
        radix = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("radix", torch.tensor(radix), persistent=False)
        self.register_buffer("bases", torch.tensor(levels), persistent=False)
        starts = [0, *itertools.accumulate(levels)][:-1]
        self.register_buffer("starts", torch.tensor(starts), persistent=False)

    def split(self, ids: Tensor) -> Tensor:
        """ids [...] -> digits [..., D], each below its level."""
        return ids[..., None] // self.radix % self.bases

    def join(self, digits: Tensor) -> Tensor:
        """digits [..., D] -> ids [...]."""
        return (digits * self.radix).sum(-1)
