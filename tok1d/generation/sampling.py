"""Drawing ids from a prior: temperature, top-k, top-p, guidance; token by token, or many at once.

    ids = sample(prior, asked, SampleConfig(guidance=1.5), seed=0, indices=range(8))      # [8, K]

Guidance (arXiv:2207.12598) is always `u + s (c - u)` of the logits u of no condition and c of what is asked
for: s = 1 is no guidance, and costs one pass less. (TiTok's `c + w (c - u)` has w = s - 1.)

Sample `i` of a seed has random numbers of its own, so its ids do not depend on the size of a batch, on the
others in it, or on the number of devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from tok1d.config.fields import ConfigError
from tok1d.config.generation import SampleConfig
from tok1d.generation.prior import AutoregressivePrior, MaskedPrior, Prior


def sample(
    prior: Prior,
    asked: Tensor,
    config: SampleConfig,
    seed: int,
    indices: Sequence[int],
    num_tokens: int | None = None,
    known: Tensor | None = None,
    cache: bool = True,
) -> Tensor:
    """ids [B, num_tokens] (None: all K) for `asked` [B, A], the samples of these `indices` of a seed.

    `known` [B, j] are first tokens that are given, such as those of a real image. `cache` keeps keys and
    values of earlier tokens: the same ids, sooner. Raises `ConfigError` for an impossible length, for
    guidance without conditions, and for conditions, known tokens or a seed that cannot be meant.
    """
    K = prior.shape.num_tokens
    length = K if num_tokens is None else num_tokens
    check_asked(prior, asked, known, seed)
    if not 1 <= length <= K:
        raise ConfigError(f"num_tokens={num_tokens} cannot be generated: type 1 … {K}, as this prior has")
    if known is not None and known.shape[1] >= length:
        raise ConfigError(
            f"{known.shape[1]} of {length} tokens are given, none is left to generate: give fewer"
        )
    if config.guidance != 1 and not prior.shape.attributes:
        raise ConfigError(
            f"guidance={config.guidance} needs a prior that was trained with conditions: type guidance=1"
        )
    rngs = generators(seed, indices)
    asked = asked.to(prior.device)
    known = torch.empty(len(asked), 0, dtype=torch.long) if known is None else known
    known = known.to(prior.device)
    with torch.no_grad():
        if isinstance(prior, AutoregressivePrior):
            return sample_autoregressive(prior, asked, config, rngs, length, known, cache)
        assert isinstance(prior, MaskedPrior)
        return sample_masked(prior, asked, config, rngs, known)[-1].ids[:, :length]


def check_asked(prior: Prior, asked: Tensor, known: Tensor | None, seed: int) -> None:
    """Raises `ConfigError`."""
    anything, codes = asked.new_tensor(prior.anything), prior.shape.codebook_size
    integers = not asked.is_floating_point() and asked.shape == (len(asked), len(anything)) and len(asked)
    if not integers or (asked < 0).any() or (asked > anything).any():
        raise ConfigError(
            f"asked is int64 [B, {len(anything)}] of indices that this prior knows, got {list(asked.shape)}: "
            f"make it with Generator.asked or Generator.balanced"
        )
    if known is not None and (
        known.is_floating_point() or known.ndim != 2 or len(known) != len(asked) or
        (known.numel() and not 0 <= known.min() <= known.max() < codes)
    ):  # fmt: skip
        raise ConfigError(
            f"known tokens are int64 [{len(asked)}, j] in 0 … {codes - 1}, got {list(known.shape)}: "
            f"give the first of Tokenizer.encode"
        )
    if seed < 0:
        raise ConfigError(f"seed={seed} is below 0: type seed={-seed}")


def generators(seed: int, indices: Sequence[int]) -> list[np.random.Generator]:
    """Each sample's own."""
    return [np.random.default_rng((seed, index)) for index in indices]


def sample_autoregressive(
    prior: AutoregressivePrior,
    asked: Tensor,
    config: SampleConfig,
    rngs: list[np.random.Generator],
    length: int,
    known: Tensor,
    cache: bool = True,
) -> Tensor:
    """ids [B, length], token by token."""
    noise = uniforms(rngs, (prior.shape.num_tokens, len(prior.shape.levels)), prior.device)  # [B, K, D]
    scales = [guidance_at(config, k, length) for k in range(length)]
    guided = any(scale != 1 for scale in scales[known.shape[1] :])
    both = twice if guided else once
    conditions = torch.cat([asked, unasked(prior, asked)]) if guided else asked
    ids, kept = known, DynamicCache() if cache else None
    inputs = prior.inputs(both(ids), conditions)
    while ids.shape[1] < length:
        k = ids.shape[1]
        logits = prior.head(prior.features(inputs, kept)[:, -1:], k)
        token, _ = draw_tokens(prior, logits, scales[k], noise[:, k : k + 1], config, k)
        ids = torch.cat([ids, token], 1)
        inputs = prior.vectors(both(token), k) if cache else prior.inputs(both(ids), conditions)
    return ids


class Unmasked(NamedTuple):
    """What a step of a masked prior leaves."""

    ids: Tensor  # [B, K]; -1 is a mask, the last step leaves none
    guess: Tensor  # [B, K]: the same without masks, as they were drawn in this step


def sample_masked(
    prior: MaskedPrior,
    asked: Tensor,
    config: SampleConfig,
    rngs: list[np.random.Generator],
    known: Tensor,
) -> list[Unmasked]:
    """What each of `config.masked_steps` steps leaves.

    Each step draws every masked token, and keeps those it is surest of: by log-probability plus Gumbel noise
    of `confidence_temperature`, which falls to 0. After a share r of the steps 2/π · arccos(r) are masked.
    """
    K, steps = prior.shape.num_tokens, config.masked_steps
    noise = uniforms(rngs, (steps, K, len(prior.shape.levels) + 1), prior.device)
    both = twice if config.guidance != 1 else once
    conditions = torch.cat([asked, unasked(prior, asked)]) if config.guidance != 1 else asked
    ids = torch.full((len(asked), K), -1, device=prior.device)
    ids[:, : known.shape[1]] = known
    found = []
    for step in range(steps):
        logits = prior.logits(both(ids), conditions)  # [B or 2 B, K, total]
        scale = guidance_at(config, step, steps)
        drawn, log_p = draw_tokens(prior, logits, scale, noise[:, step, :, :-1], config)
        share = (step + 1) / steps
        left = math.floor((K - known.shape[1]) * math.acos(share) / (math.pi / 2))
        gumbel = -(-noise[:, step, :, -1].clamp(1e-9, 1 - 1e-9).log()).log()
        sure = log_p + config.confidence_temperature * (1 - share) * gumbel
        sure = sure.masked_fill(ids >= 0, math.inf)
        surest = sure.argsort(stable=True, dim=1, descending=True).argsort(1) < K - left
        guess = torch.where(ids < 0, drawn, ids)
        ids = torch.where(surest, guess, ids)
        found.append(Unmasked(ids, guess))
    return found


def draw_tokens(
    prior: Prior, logits: Tensor, scale: float, noise: Tensor, config: SampleConfig, k: int = 0
) -> tuple[Tensor, Tensor]:
    """Tokens k … k + n - 1: ids [B, n], and their log-probabilities before temperature.

    logits [B, n, total], or [2 B, n, total], those with the conditions first, to be guided by `scale`; noise
    uniform in 0 … 1, [B, n, D].
    """
    guided = len(logits) > len(noise)
    both = twice if guided else once
    digits = torch.zeros(noise.shape, dtype=torch.long, device=noise.device)
    log_p = noise.new_zeros(noise.shape[:2])
    for d in range(noise.shape[-1]):
        found = prior.head.of_digit(logits, d, both(digits), k)
        if guided:
            asked, anything = found.chunk(2)
            found = asked if scale == 1 else anything + scale * (asked - anything)
        digits[..., d] = draw(found, noise[..., d], config)
        log_p += found.log_softmax(-1).gather(-1, digits[..., d, None])[..., 0]
    return prior.digits.join(digits), log_p


def draw(logits: Tensor, noise: Tensor, config: SampleConfig) -> Tensor:
    """Values [...] by logits [..., level] and uniform numbers [...]: where the distribution exceeds them."""
    if not config.temperature:
        return logits.argmax(-1)
    p = filtered(logits.double() / config.temperature, config.top_k, config.top_p).softmax(-1).cumsum(-1)
    return (noise[..., None] >= p[..., :-1]).sum(-1)


def filtered(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits [..., V], -inf but for the `top_k` likeliest, and of these the fewest that have `top_p`."""
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -math.inf)
    if top_p < 1:
        ordered, order = logits.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # of all that are likelier
        logits = logits.masked_fill((before >= top_p).scatter(-1, order, before >= top_p), -math.inf)
    return logits


def guidance_at(config: SampleConfig, k: int, count: int) -> float:
    """The scale at token (or step) k of `count`, counted from 0."""
    s, share = config.guidance, k / max(1, count - 1)
    if config.guidance_schedule == "constant":
        return s
    if config.guidance_schedule == "step":
        return s if k >= config.guidance_start * count else 1.0
    if config.guidance_schedule == "linear":
        return 1 + (s - 1) * share
    return 1 + (s - 1) * (1 - math.cos(math.pi * share**config.guidance_power)) / 2


def uniforms(rngs: list[np.random.Generator], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform numbers in 0 … 1 of each sample's own generator, float64 [B, *shape]."""
    return torch.from_numpy(np.stack([rng.random(shape) for rng in rngs])).to(device)


def unasked(prior: Prior, asked: Tensor) -> Tensor:
    """As many sequences without conditions, [B, A]."""
    return asked.new_tensor(prior.anything).expand_as(asked)


def once(x: Tensor) -> Tensor:
    return x


def twice(x: Tensor) -> Tensor:
    return torch.cat([x, x])
