"""What an evaluation needs of a tokenizer: ours, or any object with `encode` and `decode`.

    class Peer:
        name = "their-model-l32"  # optional: for the card
        token_counts = (32, 64)  # optional: the counts it can make; encode then takes num_tokens
        codebook_size = 4096  # optional: its codes are counted, and give bits a token
        bits_per_token = 12.0  # optional: if the codebook's size does not say it
        prefix = True  # optional: its first k codes are those of k tokens, so it encodes once
        card = {"input_range": "-1 … 1"}  # optional: what else the card says of it

        def encode(self, images): ...  # float [B, 3, H, W] in 0 … 1 -> ids [B, K] int64, or anything else
        def decode(self, codes): ...  # what encode gave -> float [B, 3, H, W], about 0 … 1
        def bits(self, codes): ...  # optional: bits of each image, B numbers, where they vary

Instead of ids there may be continuous codes [B, K, dim], or a list of the B images' bytes (a codec).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.parse import check_counts
from tok1d.config.schema import EvalConfig
from tok1d.models.linear import LinearTokenizer
from tok1d.models.tokenizer import Tokenizer
from tok1d.models.weights import model_sha256


class Encoded(NamedTuple):
    num_tokens: int | None  # None: a codec without tokens
    codes: Any  # what decode takes
    ids: Tensor | None  # [B, num_tokens]
    bits: list[float] | None  # of each image
    seconds: float  # that encoding took; 0 for the prefix of a larger count


class NativeTokenizer:
    """A `Tokenizer`. An elastic one encodes once: tokens 1 … k are the same whatever follows them."""

    def __init__(self, tokenizer: Tokenizer, config: EvalConfig):
        check_counts([tokenizer.config, config])
        self.tokenizer, self.dtype = tokenizer.eval(), config.eval_dtype
        self.counts = tuple(sorted(config.token_counts or tokenizer.config.token_counts))
        self.codebook_size = tokenizer.quantizer.codebook_size
        self.device = tokenizer.device
        self.identity = {"model": type(tokenizer).__name__, "model_sha256": model_sha256(tokenizer)}

    def encode(self, images: Tensor) -> list[Encoded]:
        """images [B, 3, H, W] in 0 … 1 at every count."""
        K = self.counts[-1]
        with arithmetic(self.device, self.dtype):
            (codes, ids, *_), seconds = timed(lambda: self.tokenizer.encode_codes(images, K), self.device)
        bits = self.tokenizer.config.bits_per_token
        return [
            Encoded(
                k,
                codes[:, :k],
                None if ids is None else ids[:, :k],
                [k * bits] * len(images),
                seconds * (k == K),
            )
            for k in self.counts
        ]

    def decode(self, codes: Tensor) -> Tensor:
        """Before any clamping, [B, 3, H, W]."""
        with arithmetic(self.device, self.dtype):
            return self.tokenizer.decode_unclamped(codes).images.float()

    def on(self, device: torch.device) -> NativeTokenizer:
        """A copy of it on another device."""
        other = copy.copy(self)
        other.tokenizer, other.device = copy.deepcopy(self.tokenizer).to(device), device
        return other


class Digits(NamedTuple):
    values: Tensor  # [B, n] int64
    bits: float  # of each image


class LinearCode:
    """The linear code of equal bits beside a tokenizer, the line to beat: measured as any foreign one."""

    name = "linear code"

    def __init__(
        self, code: LinearTokenizer, token_counts: tuple[int, ...], bits_per_token: float, fitted_to: str
    ):
        """`fitted_to` is the fingerprint of images."""
        self.code, self.token_counts, self.bits_per_token = code, token_counts, bits_per_token
        self.fitted_to = fitted_to

    def encode(self, images: Tensor, num_tokens: int) -> Digits:
        """images [B, 3, S, S] -> the digits that the bits of `num_tokens` tokens pay for."""
        bits = num_tokens * self.bits_per_token
        return Digits(self.code.encode_digits(images, self.code.digits_of(bits)), bits)

    def decode(self, digits: Digits) -> Tensor:
        return self.code.decode_digits(digits.values)

    def bits(self, digits: Digits) -> list[float]:
        return [digits.bits] * len(digits.values)


class ForeignTokenizer:
    """Any other object with `encode` and `decode`."""

    def __init__(self, peer: Any, config: EvalConfig):
        for name in ("encode", "decode"):
            if not callable(getattr(peer, name, None)):
                raise ConfigError(
                    f"a {type(peer).__name__} has no {name}: give an object with encode and decode"
                )
        self.peer = peer
        own = tuple(getattr(peer, "token_counts", ()))
        for count in config.token_counts:
            if count not in own:
                can = f"type token_counts={','.join(map(str, own))}" if own else "give it token_counts"
                raise ConfigError(f"token_counts={count} is no count of this {type(peer).__name__}: {can}")
        self.counts = tuple(sorted(config.token_counts or own))
        self.codebook_size = int(getattr(peer, "codebook_size", 0))
        parameters: Iterable[Tensor] = getattr(peer, "parameters", tuple)()
        self.device = next((p.device for p in parameters), torch.device("cpu"))
        name = getattr(peer, "name", type(peer).__qualname__)
        self.identity: dict[str, Any] = {"model": str(name), "model_sha256": model_sha256(peer)}
        if facts := getattr(peer, "card", None):
            self.identity["peer"] = dict(facts)
        self.dtype, self.prefix = config.eval_dtype, bool(getattr(peer, "prefix", False))
        if isinstance(peer, torch.nn.Module):
            peer.eval()

    def encode(self, images: Tensor) -> list[Encoded]:
        if not self.prefix or len(self.counts) < 2:
            return [self._encode(images, {"num_tokens": k} if k else {}) for k in self.counts or (None,)]
        whole = self._encode(images, {"num_tokens": self.counts[-1]})
        return [self._first(whole, k) for k in self.counts[:-1]] + [whole]

    def _first(self, whole: Encoded, k: int) -> Encoded:
        """The first k of these codes."""
        codes = whole.codes[:, :k]
        return Encoded(k, codes, None if whole.ids is None else codes, self._bits(codes, k), 0.0)

    def _encode(self, images: Tensor, count: dict[str, int]) -> Encoded:
        with arithmetic(self.device, self.dtype):
            codes, seconds = timed(lambda: self.peer.encode(images, **count), self.device)
        tensor = isinstance(codes, Tensor)
        ids = codes if tensor and not codes.is_floating_point() else None
        num_tokens = codes.shape[1] if tensor and codes.ndim in (2, 3) else count.get("num_tokens")
        return Encoded(num_tokens, codes, ids, self._bits(codes, num_tokens), seconds)

    def decode(self, codes: Any) -> Tensor:
        with arithmetic(self.device, self.dtype):
            return self.peer.decode(codes).float()

    def on(self, device: torch.device) -> ForeignTokenizer:
        """A copy of it on another device, as far as `to` moves it."""
        other = copy.copy(self)
        other.peer, other.device = copy.deepcopy(self.peer), device
        if isinstance(other.peer, torch.nn.Module):
            other.peer.to(device)
        return other

    def _bits(self, codes: Any, num_tokens: int | None) -> list[float] | None:
        if hasattr(self.peer, "bits"):
            return [float(bits) for bits in self.peer.bits(codes)]
        if not isinstance(codes, Tensor) and codes and isinstance(codes[0], bytes):
            return [8.0 * len(data) for data in codes]
        each = getattr(self.peer, "bits_per_token", 0) or math.log2(max(self.codebook_size, 1))
        return [num_tokens * each] * len(codes) if each and num_tokens else None


def as_measurable(tokenizer: Any, config: EvalConfig) -> NativeTokenizer | ForeignTokenizer:
    """Raises `ConfigError` for an object that cannot be measured, or not at these token counts."""
    return (NativeTokenizer if isinstance(tokenizer, Tokenizer) else ForeignTokenizer)(tokenizer, config)


def arithmetic(device: torch.device, dtype: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")


def timed(function: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What a function gives, and the seconds that it took."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda device: None
    wait(device)  # for what was asked of it before
    began = time.perf_counter()
    result = function()
    wait(device)
    return result, time.perf_counter() - began
