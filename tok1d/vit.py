"""What encoder and decoder share: sizes, and how random weights start."""

from __future__ import annotations

import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

VIT_SIZES: dict[str, tuple[int, int, int]] = {  # width, depth, heads
    "nano": (128, 2, 4),  # for CPUs
    "T": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
}


def grid_positions(grid: int, width: int) -> Tensor:
    """2D sin-cos positions, [grid², width], of unit scale: mean square 1, like a normalised activation.

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
