"""What encoder and decoder share: sizes, the encoder's network by name, and how random weights start."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import timm
import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tok1d.config.fields import ConfigError
from tok1d.config.registry import TIMM, timm_name
from tok1d.config.schema import TokenizerConfig

VIT_SIZES: dict[str, tuple[int, int, int]] = {  # width, depth, heads
    "nano": (128, 2, 4),  # for CPUs
    "T": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
}


def through(blocks: Iterable[nn.Module], x: Tensor, recompute: bool = False, **options: Any) -> Tensor:
    """x [B, N, D] through the blocks; `recompute` keeps only their inputs for the backward pass."""
    recompute = recompute and torch.is_grad_enabled()
    for block in blocks:
        x = checkpoint(block, x, use_reentrant=False, **options) if recompute else block(x, **options)
    return x


ViT = VisionTransformer | Eva


def build_vit(config: TokenizerConfig) -> tuple[ViT, tuple[float, ...], tuple[float, ...]]:
    """The encoder's ViT with random weights, and the mean and std of the images it is fed.

    Its modules depend on the config alone, so a saved tokenizer needs no pretrained file: those of
    `encoder_init`, or of `random_like`, or for neither a plain ViT. Raises `ConfigError` for a `timm:NAME`
    that is no ViT.
    """
    init = config.random_like if config.encoder_init == "random" else config.encoder_init
    width, depth, heads = VIT_SIZES[config.encoder_size]
    if init:
        own = {} if init.startswith(TIMM) else dict(embed_dim=width, depth=depth, num_heads=heads)
        vit = timm_vit(timm_name(init, config.encoder_size), config, **own)
        mean, std = statistics_of(vit)
    else:
        vit = VisionTransformer(
            config.image_size, config.patch_size, embed_dim=width, depth=depth, num_heads=heads,
            num_classes=0, global_pool="",
        )  # fmt: skip
        mean = std = (0.5, 0.5, 0.5)
    init_random(vit, config.grid)
    return vit, mean, std


def statistics_of(vit: ViT) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the images that one of timm's networks was trained with, in 0 … 1."""
    facts: Any = vit.pretrained_cfg
    return tuple(facts["mean"]), tuple(facts["std"])


def timm_vit(name: str, config: TokenizerConfig, **changes: Any) -> ViT:
    """timm's ViT `name` for our images and patches, without a head."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models("*vit*") + timm.list_models("eva*"), n=1)
        hint = f"did you mean timm:{close[0]}?" if close else "for example type timm:vit_base_patch16_224"
        raise ConfigError(f"timm:{name} is no model that this timm ({timm.__version__}) knows: {hint}")
    try:
        if name.startswith(("eva", "vit")):  # Eva: rotary positions computed once, for one grid
            changes = changes | dict(dynamic_img_size=False)
        vit = timm.create_model(
            name,
            img_size=config.image_size,
            patch_size=config.patch_size,
            num_classes=0,
            global_pool="",
            **changes,
        )
    except Exception:  # not one of the networks below
        vit = None
    if (
        not isinstance(vit, VisionTransformer | Eva)
        or getattr(vit, "rope_mixed", False)
        or not hasattr(vit, "norm")
    ):
        raise ConfigError(f"timm:{name} is no plain ViT: for example type timm:vit_base_patch16_224")
    return vit


def init_random(vit: ViT, grid: int) -> None:
    """Fill a ViT with random weights: positions, class and register tokens of unit scale, LayerScale of 1.

    At its trained networks' own start, 1e-5, LayerScale would hide every block for thousands of steps: with
    1, a network that has it starts as the one that lacks it does.
    """
    init_blocks(vit.blocks)
    with torch.no_grad():
        if vit.pos_embed is not None:
            prefix = vit.pos_embed.shape[1] - grid**2
            vit.pos_embed[:, :prefix] = 0
            vit.pos_embed[:, prefix:] = grid_positions(grid, vit.embed_dim)
        for token in (vit.cls_token, vit.reg_token):
            if token is not None:
                nn.init.normal_(token)
        for name, p in vit.named_parameters():
            if is_layer_scale(name):
                nn.init.ones_(p)


def is_layer_scale(name: str) -> bool:
    return name.endswith((".gamma", ".gamma_1", ".gamma_2"))


def grid_positions(grid: int, width: int) -> Tensor:
    """2D sin-cos positions, [grid², width], of unit scale: mean square 1, like a normalized activation.

    At timm's scale of 0.02 attention is blind to position for long, and training starts many times slower.
    """
    return build_sincos2d_pos_embed([grid, grid], width, interleave_sin_cos=True) * 2**0.5


def init_blocks(blocks: nn.Module) -> None:
    """Random weights that keep the scale of activations: std 1 / sqrt(inputs), biases 0.

    timm's fixed 0.02 does that for width 2500. At width 128 its queries and keys are so small that attention
    starts uniform, and has to find out where to look.
    """
    for layer in blocks.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5, a=-1.0, b=1.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def mixing_matrix(outputs: int, inputs: int) -> nn.Parameter:
    """Random weights [outputs, inputs] for a mix of `inputs` vectors that keeps their scale."""
    return nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)


def prefix_mask(patches: int, tokens: int, device: torch.device) -> Tensor:
    """Who may look at whom, bool [N + K, N + K]: patches at patches, token k at patches and tokens 1 … k."""
    mask = torch.ones(patches + tokens, patches + tokens, dtype=torch.bool, device=device).tril()
    mask[:patches, :patches] = True
    return mask
