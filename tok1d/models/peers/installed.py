"""Peers whose own package computes them: installed by the user, imported only when asked for, never copied.

Their loaders read their files; nothing in those is executed by code of ours. Each is measured like any
foreign tokenizer, `tok1d.evaluation.measured`.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tok1d.config.fields import ConfigError
from tok1d.config.peers import INSTALLED, PEER, Installed


def load_installed(name: str) -> Adapter:
    """The adapter of a row of `INSTALLED`. Raises `ConfigError` if package or weights are not here."""
    row = INSTALLED[name]
    try:
        importlib.import_module(row.package)
    except ImportError as error:
        raise ConfigError(
            f"{PEER}{name} is computed by its authors' own package, which is not here ({error}): read its "
            f"license ({row.license}) and type '{row.install}'"
        ) from None
    adapter = next(cls for start, cls in ADAPTERS.items() if name.startswith(start))
    try:
        peer = adapter(row)
    except Exception as error:  # their loader's: no internet, another version
        raise ConfigError(
            f"{row.model} cannot be loaded by {row.package} ({type(error).__name__}: {str(error)[:80]}): "
            f"load it once by itself where there is internet, and bring the hub's cache here"
        ) from None
    return finished(peer, name)


def load_function(name: str) -> Adapter:
    """What a function of the user's returns, `module:function`: an object with encode, decode and image_size.
    So GigaTok, SFTok and others are measured in their own code. Raises `ConfigError`.
    """
    module, _, function = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{PEER}{name} is no function of a module that Python finds ({error}): add its folder to "
            f"PYTHONPATH"
        ) from None
    lacking = [n for n in ("encode", "decode", "image_size") if not hasattr(made, n)]
    if lacking:
        raise ConfigError(
            f"what {PEER}{name} returns has no {lacking[0]}: return an object with encode, decode and "
            f"image_size, as tok1d/evaluation/measured.py says"
        )
    license = getattr(made, "license", "not said")
    peer = Adapter(Installed(module, "", license, name, made.image_size), made)
    for optional in ("token_counts", "codebook_size", "bits_per_token", "prefix", "bits", "input_range"):
        if hasattr(made, optional):
            setattr(peer, optional, getattr(made, optional))
    return finished(peer, name)


def finished(peer: Adapter, name: str) -> Adapter:
    """Its name and report, once it is built."""
    row = peer.row
    print(f"{PEER}{name}, license: {row.license}")
    peer.name = PEER + name
    peer.report = {
        "peer": peer.name, "source": row.model, "license": row.license, **peer.card,
        "unexplained": peer.unexplained, "tensors": [],
    }  # fmt: skip
    return peer.eval().requires_grad_(False)


class AdapterConfig(NamedTuple):
    model: str
    image_size: int


class Adapter(nn.Module):
    """An authors' model, or another object, as what is measured: images in 0 … 1 on both sides."""

    name = ""
    input_range = "0 … 1"
    unexplained = "its package does not say what its latent tokens look at"
    token_counts: tuple[int, ...] = ()
    codebook_size = 0
    bits_per_token = 0.0

    def __init__(self, row: Installed, model: Any):
        super().__init__()
        self.model: Any = model
        self.row, self.config = row, AdapterConfig(row.model, row.image_size)
        self.report: dict[str, Any] = {}

    def encode(self, images: Tensor, num_tokens: int | None = None) -> Any:
        """float [B, 3, S, S] in 0 … 1 -> ids, or codes."""
        count = num_tokens or max(self.token_counts, default=0)
        return self.model.encode(images, **({"num_tokens": count} if count else {}))

    def decode(self, codes: Any) -> Tensor:
        """What encode gave -> float [B, 3, S, S], about 0 … 1."""
        return self.model.decode(codes)

    @property
    def card(self) -> dict[str, Any]:
        return {
            "format": f"as {self.row.package} computes it", "input_range": self.input_range,
            "bits_per_token": self.bits_per_token or None, "decoder": "its package's",
        }  # fmt: skip


class FlexTok(Adapter):
    """arXiv:2502.13967: 1 … 256 ids of 64,000 codes; pixels by a flow from noise, with guidance."""

    input_range = "-1 … 1"
    token_counts = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    codebook_size = 8**3 * 5**3
    steps, guidance, seed = 20, 7.5, 0
    prefix = True

    def __init__(self, row: Installed):
        from flextok.flextok_wrapper import FlexTokFromHub

        super().__init__(row, FlexTokFromHub.from_pretrained(row.model))

    def encode(self, images: Tensor, num_tokens: int | None = None) -> Tensor:
        """float [B, 3, 256, 256] in 0 … 1 -> ids [B, num_tokens]."""
        return torch.cat(self.model.tokenize(images * 2 - 1))[:, :num_tokens]

    def decode(self, ids: Tensor) -> Tensor:
        """ids [B, k] -> float [B, 3, 256, 256]; the same noise for each image, whatever the batch."""
        made = []
        for each in ids:
            noise = torch.Generator(device=ids.device).manual_seed(self.seed)
            made.append(
                self.model.detokenize(
                    [each[None]], timesteps=self.steps, guidance_scale=self.guidance,
                    perform_norm_guidance=True, generator=noise,
                )
            )  # fmt: skip
        return torch.cat(made) / 2 + 0.5

    @property
    def card(self) -> dict[str, Any]:
        noise = {"decoder_steps": self.steps, "decoder_guidance": self.guidance, "decoder_seed": self.seed}
        return super().card | {"decoder": "flow, adaptive projected guidance"} | noise


class MAETok(Adapter):
    """arXiv:2502.03444: 128 tokens of 32 numbers, which have no bits."""

    input_range = "-1 … 1"

    def __init__(self, row: Installed):
        from modelling.tokenizer import AEModel

        super().__init__(row, AEModel.from_pretrained(row.model, pretrained=False))

    def encode(self, images: Tensor, num_tokens: int | None = None) -> Tensor:
        """float [B, 3, 256, 256] in 0 … 1 -> codes [B, 128, 32]."""
        return self.model.encode(images * 2 - 1)[0]

    def decode(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes) / 2 + 0.5


ADAPTERS: dict[str, type[FlexTok] | type[MAETok]] = {"flextok": FlexTok, "maetok": MAETok}
