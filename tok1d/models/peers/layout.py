"""What the keys and shapes of a TiTok or One-D-Piece checkpoint say it is, checked against its config.

Keys are believed: they are what was trained. A config that says otherwise is refused, since nobody could know
which of the two is of this model; a config that says nothing means what the peers' own code takes it for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.models.peers.titok import SIZES, TiTokConfig

MARKER = "latent_tokens"  # the name of a tensor that only these checkpoints have
TEXT = "decoder.text_guidance_proj.weight"


def layout_of(state: Mapping[str, Tensor], values: Mapping[str, Any], where: str, remedy: str) -> TiTokConfig:
    """The network of these tensors; `values` is their config, `where` it came from. Raises `ConfigError`."""
    if TEXT in state:
        raise ConfigError(
            "this is a TA-TiTok, whose decoder is told a caption of each image, which is another protocol: "
            "type peer:titok-bl64-vq, or another that needs none"
        )
    told = section(values, where)
    found = from_keys(state, remedy)
    unit = bool(told.get("use_l2_norm", False))
    one_d_piece = nested(values, "model", "type") == "one_d_piece"
    elastic = one_d_piece or told.get("strict_length_assertion") is False
    config = TiTokConfig(**found, unit_codes=unit and found["codebook_size"] > 0, elastic=elastic)
    check_against(config, "pixel_decoder.conv_in.weight" in state, values, told, where)
    return config


def section(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """What the config says of the network."""
    told = nested(values, "model", "vq_model")
    if not isinstance(told, Mapping):
        raise ConfigError(
            f"{where} says nothing of model.vq_model: bring the config.json that was published with the "
            f"weights"
        )
    return told


def nested(values: Any, *names: str) -> Any:
    """What lies below these names; None where nothing does."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def from_keys(state: Mapping[str, Tensor], remedy: str) -> dict[str, Any]:
    """The fields of a `TiTokConfig` that names and shapes of tensors tell."""
    sides = {}
    for side in ("encoder", "decoder"):
        positions = matrix(state, f"{side}.positional_embedding", remedy)
        grid = math.isqrt(positions.shape[0] - 1)
        size = next((name for name, (width, _) in SIZES.items() if width == positions.shape[1]), None)
        if size is None or grid**2 != positions.shape[0] - 1:
            widths = ", ".join(str(width) for width, _ in SIZES.values())
            raise ConfigError(
                f"{side}.positional_embedding is {[*positions.shape]}, a square grid and a class token of "
                f"width {widths} there: {remedy}"
            )
        sides[side] = size, grid
    patch = matrix(state, "encoder.patch_embed.weight", remedy, 4).shape[-1]
    embed = matrix(state, "decoder.decoder_embed.weight", remedy)
    image_size = sides["encoder"][1] * patch
    codebook = state.get("quantize.embedding.weight")
    return {
        "encoder_size": sides["encoder"][0], "decoder_size": sides["decoder"][0],
        "num_latent_tokens": matrix(state, MARKER, remedy).shape[0], "token_size": embed.shape[1],
        "codebook_size": 0 if codebook is None else codebook.shape[0], "image_size": image_size,
        "encoder_patch": patch, "decoder_patch": image_size // sides["decoder"][1],
        "legacy": "decoder.ffn.2.weight" in state,
    }  # fmt: skip


def matrix(state: Mapping[str, Tensor], name: str, remedy: str, axes: int = 2) -> Tensor:
    found = state.get(name)
    if found is None or found.ndim != axes or not found.numel():
        shape = "is missing" if found is None else f"is {[*found.shape]}"
        raise ConfigError(f"this is no whole TiTok or One-D-Piece: {name} {shape}: {remedy}")
    return found


def check_against(
    config: TiTokConfig, pixels: bool, values: Mapping[str, Any], told: Mapping[str, Any], where: str
) -> None:
    """Raises `ConfigError` where the config says something else than the tensors."""
    if told.get("is_legacy") is None and not config.legacy:
        raise ConfigError(
            f"{where} has no is_legacy, which its authors' code takes for true, but the tensors are of a "
            f"one-stage model: write is_legacy: false under model.vq_model there"
        )
    says: dict[str, tuple[Any, Any]] = {
        "is_legacy": (told.get("is_legacy", True), config.legacy),
        "quantize_mode": (told.get("quantize_mode", "vq"), "vq" if config.codebook_size else "vae"),
        "vit_enc_model_size": (told.get("vit_enc_model_size"), config.encoder_size),
        "vit_dec_model_size": (told.get("vit_dec_model_size"), config.decoder_size),
        "vit_enc_patch_size": (told.get("vit_enc_patch_size"), config.encoder_patch),
        "vit_dec_patch_size": (told.get("vit_dec_patch_size"), config.decoder_patch),
        "num_latent_tokens": (told.get("num_latent_tokens"), config.num_latent_tokens),
        "token_size": (told.get("token_size"), config.token_size),
        "crop_size": (nested(values, "dataset", "preprocessing", "crop_size"), config.image_size),
    }
    if pixels or not config.legacy:  # a first stage may be completed by another file
        says["finetune_decoder"] = told.get("finetune_decoder"), pixels
    if config.codebook_size:
        says["codebook_size"] = told.get("codebook_size"), config.codebook_size
    else:
        says["use_l2_norm"] = told.get("use_l2_norm"), False
    for name, (theirs, ours) in says.items():
        if theirs is not None and theirs != ours:
            raise ConfigError(
                f"{where} says {name}={theirs}, but the tensors beside it are of {name}={ours}: bring the "
                f"config.json and the weights that belong together"
            )
