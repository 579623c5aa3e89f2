"""The parameters of the network."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from tok1d.config.fields import Config, Counts, Float, Init, Int, Ints, Like, Size


class TokenizerConfig(Config):
    """The network. Sizes are timm's ViTs; `nano` (width 128, 2 blocks) is for CPUs."""

    image_size: Int = Field(256, ge=8, le=2048, description="side of the square images, in pixels")
    patch_size: Int = Field(16, ge=2, le=64, description="side of a ViT patch, in pixels")
    encoder_size: Size = Field("S", description="ViT encoder: nano, T, S, B or L")
    decoder_size: Size = Field("S", description="ViT decoder: nano, T, S, B or L")
    encoder_init: Init = Field("random", description="random, mae, clip, dino, dinov2, … or timm:NAME")
    random_like: Like = Field("", description="build a random encoder with the modules of this encoder_init")
    num_latent_tokens: Int = Field(64, ge=1, le=4096, description="K, the tokens an image becomes")
    elastic: bool = Field(False, description="one model for every token count up to K (nested dropout)")
    token_mixing: bool = Field(
        True, description="start tokens from learned mixes of patches, and the way back"
    )
    decoder_head: Literal["patch", "cnn"] = Field(
        "patch", description="patch: one linear map a patch; cnn: VQGAN's convolutional decoder"
    )
    cnn_channels: Int = Field(128, ge=32, le=1024, multiple_of=32, description="channels at full resolution")
    cnn_multipliers: Counts = Field((1, 1, 2, 2, 4), description="times as many, from full resolution down")
    cnn_blocks: Int = Field(
        2, ge=1, le=8, description="its residual blocks a level, less one, as VQGAN counts"
    )
    cnn_attention: Counts = Field((16,), description="sides at which its levels have attention")
    quantizer: Literal["fsq", "vq", "vq_ema", "lfq", "simvq", "softvq", "kl"] = Field(
        "fsq", description="fsq, vq (L2-normalised codebook), vq_ema, lfq, simvq, softvq or kl (continuous)"
    )
    fsq_levels: Ints = Field((8, 8, 8, 5, 5, 5), description="FSQ levels; their product is the codebook")
    codebook_size: Int = Field(4096, ge=2, le=2**20, description="codes of any other quantizer but kl")
    codebook_dim: Int = Field(16, ge=1, le=1024, description="dimensions of a code, but for fsq and lfq")
    commitment_weight: Float = Field(
        0.25, ge=0, description="weight of the commitment loss of vq, vq_ema, simvq and lfq"
    )
    codebook_decay: Float = Field(0.99, ge=0, lt=1, description="decay of vq_ema's running means, per step")
    rotation_trick: bool = Field(
        False, description="vq, vq_ema and simvq: rotate gradients past the codebook, not copy them"
    )
    entropy_temperature: Float = Field(
        0.01, gt=0, description="temperature of the softmax whose entropies are vq's entropy loss"
    )
    softvq_temperature: Float = Field(0.07, gt=0, description="temperature of softvq's mix of codes")
    kl_weight: Float = Field(1e-4, ge=0, description="weight of kl's divergence from a unit Gaussian")

    @model_validator(mode="before")
    @classmethod
    def _base_unless_told(cls, values: Any) -> Any:
        """Pretrained encoders are Base unless a size is given: it is the one size that all of them have."""
        if isinstance(values, dict) and values.get("encoder_init", "random") != "random":
            return {"encoder_size": "B"} | values
        return values

    @model_validator(mode="after")
    def _fits(self) -> TokenizerConfig:
        if self.random_like and self.encoder_init != "random":
            raise ValueError(
                f"random_like={self.random_like} needs encoder_init=random, not {self.encoder_init}: "
                f"leave one out"
            )
        size, patch = self.image_size, self.patch_size
        if size % patch:
            near = max(-(-8 // patch), min(round(size / patch), 2048 // patch)) * patch
            raise ValueError(
                f"image_size={size} is no multiple of patch_size={patch}: type image_size={near}"
            )
        doublings = len(self.cnn_multipliers) - 1
        if self.decoder_head == "cnn" and 2**doublings != patch:
            wanted = round(math.log2(patch))
            fits = ",".join(map(str, (1,) * (wanted - 4) + (1, 1, 2, 2, 4)[-wanted - 1 :]))
            hint = f"cnn_multipliers={fits}" if 2**wanted == patch else f"patch_size={2**wanted}"
            raise ValueError(
                f"decoder_head=cnn with {doublings + 1} cnn_multipliers enlarges {2**doublings} times, not "
                f"patch_size={patch}: type {hint}"
            )
        if not self.fsq_levels or min(self.fsq_levels) < 3 or math.prod(self.fsq_levels) > 2**20:
            got = ",".join(map(str, self.fsq_levels)) or ()
            need = f"must be 3 or more each, with a product of at most {2**20}, got {got}"
            raise ValueError(f"fsq_levels {need}: for example type fsq_levels=8,8,8,5,5,5")
        return self

    @model_validator(mode="after")
    def _fits_the_quantizer(self) -> TokenizerConfig:
        if self.quantizer == "lfq" and (self.codebook_size.bit_count() != 1 or self.codebook_size < 4):
            near = 2 ** min(20, max(2, round(math.log2(self.codebook_size))))
            raise ValueError(
                f"codebook_size={self.codebook_size} is no power of two from 4 on, as quantizer=lfq needs: "
                f"type codebook_size={near}"
            )
        if self.codebook_dim < 2 and self.quantizer in ("vq", "vq_ema", "softvq"):
            raise ValueError(
                f"codebook_dim={self.codebook_dim} is too few for quantizer={self.quantizer}, whose codes "
                f"are on a sphere: type codebook_dim=2 or more"
            )
        if self.rotation_trick and self.quantizer not in ("vq", "vq_ema", "simvq"):
            raise ValueError(
                f"rotation_trick=true is for quantizer=vq, vq_ema or simvq, not {self.quantizer}: "
                f"type rotation_trick=false"
            )
        return self

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def bits_per_token(self) -> float:
        """What storing a token takes: its id, or if it is continuous its `codebook_dim` float32 numbers."""
        if self.quantizer in ("kl", "softvq"):
            return 32.0 * self.codebook_dim
        return math.log2(math.prod(self.fsq_levels) if self.quantizer == "fsq" else self.codebook_size)

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Counts worth showing: 1, 2, 4 … K for an elastic tokenizer, K alone for a fixed one."""
        if not self.elastic:
            return (self.num_latent_tokens,)
        powers = [2**i for i in range(self.num_latent_tokens.bit_length())]
        return tuple(sorted({*powers, self.num_latent_tokens}))
