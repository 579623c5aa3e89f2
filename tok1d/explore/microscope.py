"""One image's tokens, to be touched: dropped, edited, exchanged; what each changes, and where it looks.

    microscope = Microscope(tokenizer, image)       # uint8 [3, S, S]
    microscope.ids                                  # [K] ints
    microscope.decode([7, None, *microscope.ids[2:]])    # uint8 [3, S, S]; None: there is no such token
    microscope.effects([3])[0]                      # [S, S]: how much each pixel changes without token 3

An effect is what dropping a token changes; an attention map is where its latent query looks in the encoder,
and there is none where a token is no query: `looks_at` says why.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.data.dataset import to_float, to_uint8
from tok1d.evaluation.metrics.images import psnr
from tok1d.models.encoder import Encoder
from tok1d.models.linear import LinearTokenizer
from tok1d.models.quantizers import NO_IDS
from tok1d.models.tokenizer import Tokenizer

AT_ONCE = 32  # variants of an image that are decoded together
NO_QUERY = "a linear code's tokens are rounded coefficients, not queries: nothing looks anywhere"
NO_MAP = "this encoder's attention is rotary, and is not shown"

Ids = Sequence[int | None]  # one for each token; None: dropped


class Microscope:
    """Raises `ConfigError` for a tokenizer whose tokens are continuous."""

    def __init__(self, tokenizer: Tokenizer, image: Tensor):
        self.tokenizer, self.image = tokenizer.eval(), image
        if not tokenizer.quantizer.codebook_size:
            raise ConfigError(NO_IDS)
        with torch.no_grad():
            ids = tokenizer.encode(to_float(image[None].to(tokenizer.device)))[0]
        self.ids: list[int] = ids.tolist()
        self._without: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def decode(self, ids: Ids) -> Tensor:
        """uint8 [3, S, S]. Raises `ConfigError` for an id that there is not, or if every token is dropped."""
        return to_uint8(self._decode([self.checked(ids)]))[0]

    def _check_places(self, places: Sequence[int]) -> None:
        if not len(places):
            raise ConfigError(f"no token is named: type some of 0 … {len(self.ids) - 1}")
        if wrong := [k for k in places if not 0 <= k < len(self.ids)]:
            raise ConfigError(f"there is no token {wrong[0]}: type 0 … {len(self.ids) - 1}")

    def checked(self, ids: Ids) -> Ids:
        size, K = self.tokenizer.quantizer.codebook_size, len(self.ids)
        if len(ids) != K:
            raise ConfigError(f"{len(ids)} ids were given: give {K}, with None for a dropped token")
        if wrong := [i for i in ids if i is not None and not 0 <= i < size]:
            raise ConfigError(f"there is no code {wrong[0]}: type 0 … {size - 1}")
        if all(i is None for i in ids):
            raise ConfigError("every token is dropped: keep one")
        return ids

    @torch.no_grad()
    def _decode(self, variants: Sequence[Ids]) -> Tensor:
        """Variants that keep equally many tokens -> [B, 3, S, S] in 0 … 1."""
        device = self.tokenizer.device
        places = torch.tensor([[k for k, i in enumerate(ids) if i is not None] for ids in variants])
        ids = torch.tensor([[i for i in ids if i is not None] for ids in variants])
        codes = self.tokenizer.quantizer.ids_to_codes(ids.to(device))
        whole = places.shape[1] == len(self.ids)
        decoded = self.tokenizer.decode_unclamped(codes, None if whole else places.to(device))
        return decoded.images.float().clamp(0, 1).cpu()

    @torch.no_grad()
    def blend(self, other: Ids, share: float) -> Tensor:
        """Between this image's tokens and another's, uint8 [3, S, S]; share 0: this one, 1: the other. Codes
        are blended, of a linear code the coefficients that they stand for. Raises `ConfigError` for another
        share, and for a token that is dropped.
        """
        if not 0 <= share <= 1 or None in other:
            raise ConfigError("a blend is of whole pictures: type a share of 0 … 1, and give every token")
        tokenizer, K = self.tokenizer, len(self.ids)
        pair = torch.tensor([self.ids, list(self.checked(other))]).to(tokenizer.device)
        if not isinstance(tokenizer.encoder, LinearTokenizer):
            mine, theirs = tokenizer.quantizer.ids_to_codes(pair).split(1)
            return to_uint8(tokenizer.decode(torch.lerp(mine, theirs, share)).cpu())[0]
        mine, theirs = tokenizer.encoder.decode_ids(pair).split(1)
        image = torch.lerp(mine, theirs, share)
        return to_uint8((image if tokenizer.refine is None else tokenizer.refine(image, K)).cpu())[0]

    # ---- what each token does ----

    def without(self, places: Sequence[int]) -> Tensor:
        """The image without one of these tokens each, [B, 3, S, S] in 0 … 1; each is decoded once."""
        if len(self.ids) == 1:
            raise ConfigError("without its only token there is no image: take a tokenizer with more")
        self._check_places(places)
        new = [k for k in places if k not in self._without]
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            dropped = [[None if j == k else i for j, i in enumerate(self.ids)] for k in some]
            self._without |= zip(some, self._decode(dropped), strict=True)
        return torch.stack([self._without[k] for k in places])

    def effects(self, places: Sequence[int]) -> Tensor:
        """How much each pixel changes without one of these tokens, mean absolute difference, [B, S, S].
        Raises `ConfigError` for a token that there is not.
        """
        return (self.without(places) - self.whole).abs().mean(1)

    @functools.cached_property
    def whole(self) -> Tensor:
        """The image of all tokens, [3, S, S] in 0 … 1."""
        return self._decode([self.ids])[0]

    def lost(self, places: Sequence[int]) -> list[float]:
        """What the PSNR loses without one of these tokens, dB."""
        original = to_float(self.image)[None]
        without = psnr(self.without(places), original.expand(len(places), -1, -1, -1))
        return (psnr(self.whole[None], original) - without).tolist()

    def table(self) -> list[dict[str, Any]]:
        """A row for each token: its code, the PSNR that is lost without it, and its share of the sum of all
        effects.
        """
        every = range(len(self.ids))
        effect = self.effects(every).mean((1, 2))
        shares = (effect / effect.sum().clamp_min(1e-12)).tolist()
        return [
            {"token": k, "code": code, "lost": lost, "effect": share}
            for k, (code, lost, share) in enumerate(zip(self.ids, self.lost(every), shares, strict=True))
        ]

    def neighbors(self, k: int, count: int = 6) -> list[int]:
        """The codes nearest to that of token k, the nearest first, by the distance of their vectors."""
        self._check_places([k])
        quantizer = self.tokenizer.quantizer
        with torch.no_grad():
            vectors = quantizer.ids_to_codes(
                torch.arange(quantizer.codebook_size, device=self.tokenizer.device)
            )
            distances = (vectors - vectors[self.ids[k]]).square().sum(-1)
        order = distances.argsort(stable=True)[: count + 1].tolist()
        return [code for code in order if code != self.ids[k]][:count]

    def with_code(self, k: int, codes: Sequence[int]) -> Tensor:
        """The image with other codes at token k, uint8 [B, 3, S, S]."""
        self._check_places([k])
        if not len(codes):
            raise ConfigError(
                f"no code is given: type some of 0 … {self.tokenizer.quantizer.codebook_size - 1}"
            )
        variants = [self.checked([code if j == k else i for j, i in enumerate(self.ids)]) for code in codes]
        return to_uint8(self._decode(variants))

    def first_and_last(self) -> dict[str, Tensor]:
        """What the first token knows that the last does not, uint8 [3, S, S] each."""
        K = len(self.ids)
        kept = {
            "only the first": range(1), "all but the first": range(1, K),
            "only the last": range(K - 1, K), "all but the last": range(K - 1),
        }  # fmt: skip
        return {
            name: self.decode([i if k in places else None for k, i in enumerate(self.ids)])
            for name, places in kept.items()
            if len(places)
        }

    # ---- where a token looks ----

    @property
    def blind(self) -> str:
        """Why tokens have no attention maps; empty if they have."""
        if not isinstance(self.tokenizer.encoder, Encoder):
            return NO_QUERY
        return "" if isinstance(self.tokenizer.encoder.vit, VisionTransformer) else NO_MAP

    @functools.cached_property
    def looks_at(self) -> Tensor:
        """Where each token's query looks, [K, grid, grid], each of sum 1: attention on patches, the mean over
        heads and over the second half of the blocks. Raises `ConfigError` where a token is no query.
        """
        if self.blind:
            raise ConfigError(self.blind)
        encoder = self.tokenizer.encoder
        blocks = encoder.vit.blocks[len(encoder.vit.blocks) // 2 :]
        K, N, maps = len(self.ids), self.tokenizer.config.grid**2, []

        def keep(attention: Any, given: tuple[Tensor, ...]) -> None:
            x = given[0]
            qkv = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
            q, k = attention.q_norm(qkv[0]), attention.k_norm(qkv[1])  # [1, heads, P + N + K, d]
            patches = k[:, :, encoder.vit.num_prefix_tokens : encoder.vit.num_prefix_tokens + N]
            scores = q[:, :, -K:] @ patches.transpose(-2, -1) * attention.scale
            maps.append(scores.softmax(-1).mean(1)[0])  # [K, N]

        hooks = [block.attn.register_forward_pre_hook(keep) for block in blocks]
        try:
            with torch.no_grad():
                encoder(to_float(self.image[None].to(self.tokenizer.device)), K)
        finally:
            for hook in hooks:
                hook.remove()
        side = self.tokenizer.config.grid
        return torch.stack(maps).mean(0).view(K, side, side).float().cpu()
