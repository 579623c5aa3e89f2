"""The decoder: tokens back to pixels, in one stage.

A ViT over N mask tokens (one per patch, told apart by their positions) and the K tokens; the mask tokens'
outputs become pixels. `decoder_head: patch` maps each to its patch, and a 3 × 3 convolution blends the seams
(TiTok's one-stage decoder, arXiv:2501.07730); `cnn` is VQGAN's convolutional decoder, as the seed has it.
With `token_mixing` a mask token also starts from a learned mix of all tokens: see `tok1d.models.encoder`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tok1d.config.schema import TokenizerConfig
from tok1d.models.cnn_decoder import CNNDecoder
from tok1d.models.vit import VIT_SIZES, grid_positions, init_blocks, mixing_matrix, through


class Decoded(NamedTuple):
    images: Tensor  # [B, 3, H, W], about 0 … 1, not clamped
    features: Tensor  # [B, N, D], the patches after the middle block


class Decoder(nn.Module):
    def __init__(self, config: TokenizerConfig, code_dim: int):
        super().__init__()
        width, depth, heads = VIT_SIZES[config.decoder_size]
        self.from_codes = nn.Linear(code_dim, width)
        self.mask_tokens = nn.Parameter(grid_positions(config.grid, width))  # [N, D]
        self.mix = (
            mixing_matrix(config.grid**2, config.num_latent_tokens) if config.token_mixing else None
        )  # [N, K]
        self.token_positions = nn.Parameter(torch.randn(config.num_latent_tokens, width))  # [K, D]
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        init_blocks(self.blocks)
        self.norm = nn.LayerNorm(width)
        self.to_pixels, self.blend = pixel_head(config, width)
        self.grid = config.grid
        self.recompute = False  # activations, in the backward pass: see `tok1d.training.speed`

    def forward(self, codes: Tensor) -> Decoded:
        """codes [B, k, code_dim], 1 ≤ k ≤ K -> images [B, 3, H, W], and features [B, N, D]."""
        B, k, _ = codes.shape
        tokens = self.from_codes(codes)  # [B, k, D]
        patches = self.mask_tokens.expand(B, -1, -1)  # [B, N, D]
        if self.mix is not None:
            patches = patches + self.mix[:, :k] @ tokens
        x = torch.cat([patches, tokens + self.token_positions[:k]], dim=1)  # [B, N + k, D]
        N, middle = self.grid**2, len(self.blocks) // 2
        x = through(self.blocks[:middle], x, self.recompute)
        features = x[:, :N]  # [B, N, D]
        x = through(self.blocks[middle:], x, self.recompute)
        x = self.norm(x[:, :N])  # [B, N, D]
        x = x.transpose(1, 2).unflatten(2, (self.grid, self.grid))  # [B, D, h, w]
        return Decoded(self.blend(self.to_pixels(x)) * 0.5 + 0.5, features)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the layer that makes pixels: there VQGAN's adaptive weight compares gradients."""
        head = self.to_pixels
        return head.conv_out.weight if isinstance(head, CNNDecoder) else head[0].weight


def pixel_head(config: TokenizerConfig, width: int) -> tuple[nn.Module, nn.Module]:
    """What makes pixels of patch features [B, width, h, w], about -1 … 1, and what then blends their seams.

    Both start grey, or nearly: random pixels would first have to be unlearned.
    """
    if config.decoder_head == "cnn":
        return CNNDecoder(config, width), nn.Identity()
    to_pixels = nn.Sequential(
        nn.Conv2d(width, 3 * config.patch_size**2, 1), nn.PixelShuffle(config.patch_size)
    )
    blend = nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate")
    nn.init.zeros_(to_pixels[0].weight)
    nn.init.zeros_(to_pixels[0].bias)
    nn.init.dirac_(blend.weight)
    nn.init.zeros_(blend.bias)
    return to_pixels, blend
