"""What the priors are made of: digits' embeddings, a Llama over token positions, digits' logits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from tok1d.config.registry import number_of_codes
from tok1d.config.schema import TokenizerConfig


def levels_of(config: TokenizerConfig, factorized: bool = True) -> tuple[int, ...]:
    """How many values each digit of a token has: FSQ's 64,000 codes are six digits of 8, 8, 8, 5, 5, 5, LFQ's
    2¹⁶ sixteen bits, so that neither an embedding nor a softmax is as wide as the codebook. Codebooks without
    such a structure, and those that are not to be `factorized`, are one digit.
    """
    if factorized and config.quantizer == "fsq":
        return config.fsq_levels
    if factorized and config.quantizer == "lfq":
        return (2,) * (config.codebook_size.bit_length() - 1)
    return (number_of_codes(config.quantizer, dict(config)),)


class Digits(nn.Module):
    """The mixed-radix digits of ids, the first one changing fastest."""

    radix: Tensor  # [D]
    bases: Tensor  # [D]
    starts: Tensor  # [D], where each digit's values begin among all of them

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.levels, self.total = tuple(levels), sum(levels)
        self.first = [0, *itertools.accumulate(levels)][:-1]
        self.register_buffer(
            "radix", torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]), False
        )
        self.register_buffer("bases", torch.tensor(levels), False)
        self.register_buffer("starts", torch.tensor(self.first), False)

    def split(self, ids: Tensor) -> Tensor:
        """ids [...] -> digits [..., D], each below its level."""
        return ids[..., None] // self.radix % self.bases

    def join(self, digits: Tensor) -> Tensor:
        """digits [..., D] -> ids [...]."""
        return (digits * self.radix).sum(-1)


class TokenEmbedding(nn.Module):
    """Tokens as vectors [B, n, width]: the sum of their digits' embeddings, of unit scale.

    A token of several digits has embeddings for each position: a digit of a linear code's first token says
    something else than the same digit of its tenth. (150 steps on 32 tokens of toy roads: 9.27 nats a token,
    with one table for all positions, and one head, 9.40.)
    """

    def __init__(self, digits: Digits, width: int, length: int):
        super().__init__()
        self.digits = digits
        self.table = nn.Parameter(torch.randn(tables(digits, length), digits.total, width))
        self.table.data *= len(digits.levels) ** -0.5

    def forward(self, ids: Tensor, k: int = 0) -> Tensor:
        """ids [B, n] of positions k … k + n - 1."""
        rows = self.digits.split(ids) + self.digits.starts  # [B, n, D]
        if len(self.table) == 1:
            return self.table[0][rows].sum(-2)
        at = torch.arange(k, k + ids.shape[1], device=ids.device)
        return self.table[at[:, None], rows].sum(-2)


class TokenHead(nn.Module):
    """Features [B, n, width] of positions -> the distributions of their tokens, digit after digit.

    A digit has a linear map of the features, and for each earlier digit of the same token a table whose row
    is added: the exact chain p(d₁) p(d₂ | d₁) …, of known digits at once. Maps and tables are those of a
    position, as the embeddings are.
    """

    def __init__(self, digits: Digits, width: int, length: int):
        super().__init__()
        self.digits, count = digits, tables(digits, length)
        self.weight = nn.Parameter(torch.zeros(count, digits.total, width))
        self.bias = nn.Parameter(torch.zeros(length, digits.total))
        several = len(digits.levels) > 1
        self.earlier = nn.Parameter(torch.zeros(count, digits.total, digits.total)) if several else None

    def forward(self, features: Tensor, k: int = 0) -> Tensor:
        """Logits of all digits of tokens k … k + n - 1, [B, n, total], before what earlier digits add."""
        at = slice(k, k + features.shape[1])
        weight = self.weight if len(self.weight) == 1 else self.weight[at]
        logits = (features.transpose(0, 1) @ weight.mT).transpose(0, 1)  # a product of matrices a position
        return logits.float() + self.bias[at]

    def of_digit(self, logits: Tensor, d: int, known: Tensor, k: int = 0) -> Tensor:
        """The logits of digit `d` [B, n, level], when the digits before it are `known` [B, n, ≥ d]."""
        first = self.digits.first[d]
        columns = slice(first, first + self.digits.levels[d])
        found = logits[..., columns]
        if self.earlier is None or not d:
            return found
        at = torch.arange(k, k + known.shape[1], device=known.device)[:, None]
        rows = known[..., :d] + self.digits.starts[:d]  # [B, n, d]
        return found + self.earlier[at, rows, columns].sum(-2)

    def log_likelihood(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Of tokens `ids` [B, n] from the first position on, nats [B, n], by logits [B, n, total]."""
        digits = self.digits.split(ids)
        found = logits.new_zeros(ids.shape)
        for d in range(len(self.digits.levels)):
            log_p = self.of_digit(logits, d, digits).log_softmax(-1)
            found = found + log_p.gather(-1, digits[..., d, None])[..., 0]
        return found


def tables(digits: Digits, length: int) -> int:
    """How many tables of digits there are: one for each position, or one for all."""
    return length if len(digits.levels) > 1 else 1


class Conditions(nn.Module):
    """What is asked for, [B, A] (of each attribute the index of a value, or their number for any) -> a vector
    [B, width].
    """

    def __init__(self, sizes: Sequence[int], width: int):
        super().__init__()
        self.start = nn.Parameter(torch.randn(width))
        self.tables = nn.ModuleList(nn.Embedding(size + 1, width) for size in sizes)

    def forward(self, asked: Tensor) -> Tensor:
        vectors = [table(asked[:, a]) for a, table in enumerate(self.tables)]
        return sum(vectors, self.start.expand(len(asked), -1))


def llama(width: int, depth: int, heads: int, length: int, dropout: float) -> LlamaModel:
    """transformers' Llama, without its table of words. Queries and keys start at unit scale."""
    config = LlamaConfig(
        vocab_size=1, bos_token_id=None, eos_token_id=None, hidden_size=width,
        intermediate_size=-(-width * 8 // 3 // 64) * 64, num_hidden_layers=depth, num_attention_heads=heads,
        max_position_embeddings=length, attention_dropout=dropout, initializer_range=width**-0.5,
        use_cache=False,
    )  # fmt: skip
    model = LlamaModel(config)
    del model.embed_tokens
    return model
