"""The decoder: tokens back to pixels, in one stage.

A ViT over N mask tokens (one per patch, told apart by their positions) and the K tokens; the mask tokens'
outputs become pixels. `decoder_head: patch` maps each to its patch, and a 3 × 3 convolution blends the seams
(TiTok's one-stage decoder, arXiv:2501.07730; `titok` also has its class token, its norm before the blocks
and its zeros around the image); `cnn` is VQGAN's convolutional decoder, as the reference has
it. With `token_mixing` a mask token also starts from a learned mix of all tokens: see `tok1d.models.encoder`.

That one (Esser et al. 2020, arXiv:2012.09841) goes
from the patch grid up to the pixels: two residual blocks around an attention, then a level per multiplier,
the last one first, each of `cnn_blocks + 1` residual blocks (VQGAN's decoder has one more than its encoder),
with attention where a side is in `cnn_attention`, and twice the size before the next level. GroupNorm of 32
groups and swish; no dropout.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tok1d.config.schema import TokenizerConfig
from tok1d.models.vit import VIT_SIZES, grid_positions, init_blocks, mixing_matrix, through


class CNNDecoder(nn.Module):
    """[B, width, h, w] -> [B, 3, h 2^n, w 2^n], about -1 … 1, with n + 1 multipliers."""

    def __init__(self, config: TokenizerConfig, width: int):
        super().__init__()
        widths = [config.cnn_channels * m for m in reversed(config.cnn_multipliers)]
        channels, side = widths[0], config.grid
        layers: list[nn.Module] = [
            conv3(width, channels),
            ResBlock(channels, channels),
            Attention(channels),
            ResBlock(channels, channels),
        ]
        for level, out in enumerate(widths):
            if level > 0:
                layers.append(Upsample(channels))
                side *= 2
            for _ in range(config.cnn_blocks + 1):
                layers.append(ResBlock(channels, out))
                channels = out
                if side in config.cnn_attention:
                    layers.append(Attention(channels))
        self.layers = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.conv_out = conv3(channels, 3)
        self.conv_out.weight.data *= 0.1  # start nearly gray: that learns faster than at full scale, or at 0
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(F.silu(self.norm(self.layers(x))))


class ResBlock(nn.Module):
    """x + two 3 x 3 convolutions of it, each after norm and swish; a 1 x 1 one where the width changes."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, channels, eps=1e-6), conv3(channels, out)
        self.norm2, self.conv2 = nn.GroupNorm(32, out, eps=1e-6), conv3(out, out)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.skip(x) + h


class Attention(nn.Module):
    """x + single-head attention over its places."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.qkv, self.proj = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # [B, h w, 3 C]
        out = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))  # [B, h w, C]
        return x + self.proj(out.transpose(1, 2).view_as(x))


class Upsample(nn.Module):
    """Twice the size, nearest neighbor, then a 3 x 3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def conv3(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


class Decoded(NamedTuple):
    images: Tensor  # [B, 3, H, W], about 0 … 1, not clamped
    features: Tensor | None  # [B, N, D], the patches after the middle block


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
        if config.decoder_head == "titok":
            self.class_token, self.norm_pre = nn.Parameter(torch.randn(1, width)), nn.LayerNorm(width)
        self.prefix = int(config.decoder_head == "titok")  # tokens before the patches
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        init_blocks(self.blocks)
        self.norm = nn.LayerNorm(width)
        self.to_pixels, self.blend = pixel_head(config, width)
        self.grid = config.grid
        self.recompute = False  # activations, in the backward pass: see `tok1d.training.parallelize`

    def forward(self, codes: Tensor, places: Tensor | None = None) -> Decoded:
        """codes [B, k, code_dim] of the first tokens, or of those at `places` [B, k], 1 ≤ k ≤ K -> images
        [B, 3, H, W], and features [B, N, D].
        """
        B, k, _ = codes.shape
        tokens = self.from_codes(codes)  # [B, k, D]
        patches = self.mask_tokens.expand(B, -1, -1)  # [B, N, D]
        if self.mix is not None:
            mix = self.mix[:, :k] if places is None else self.mix[:, places].transpose(0, 1)  # [B, N, k]
            patches = patches + mix @ tokens
        positions = self.token_positions[:k] if places is None else self.token_positions[places]
        x = torch.cat([patches, tokens + positions], dim=1)  # [B, N + k, D]
        if self.prefix:
            x = self.norm_pre(torch.cat([self.class_token.expand(B, 1, -1), x], dim=1))  # [B, 1 + N + k, D]
        patch, middle = slice(self.prefix, self.prefix + self.grid**2), len(self.blocks) // 2
        x = through(self.blocks[:middle], x, self.recompute)
        features = x[:, patch]  # [B, N, D]
        x = through(self.blocks[middle:], x, self.recompute)
        x = self.norm(x[:, patch])  # [B, N, D]
        x = x.transpose(1, 2).unflatten(2, (self.grid, self.grid))  # [B, D, h, w]
        return Decoded(self.blend(self.to_pixels(x)) * 0.5 + 0.5, features)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the layer that makes pixels: there VQGAN's adaptive weight compares gradients."""
        head = self.to_pixels
        last = head.conv_out if isinstance(head, CNNDecoder) else head[0]
        return last.get_parameter("weight")


def pixel_head(config: TokenizerConfig, width: int) -> tuple[CNNDecoder | nn.Sequential, nn.Module]:
    """What makes pixels of patch features [B, width, h, w], about -1 … 1, and what then blends their seams.

    Both start gray, or nearly: random pixels would first have to be unlearned.
    """
    if config.decoder_head == "cnn":
        return CNNDecoder(config, width), nn.Identity()
    linear = nn.Conv2d(width, 3 * config.patch_size**2, 1)
    blend = nn.Conv2d(
        3, 3, 3, padding=1, padding_mode="zeros" if config.decoder_head == "titok" else "replicate"
    )
    assert linear.bias is not None and blend.bias is not None
    nn.init.dirac_(blend.weight)
    for zero in (linear.weight, linear.bias, blend.bias):
        nn.init.zeros_(zero)
    return nn.Sequential(linear, nn.PixelShuffle(config.patch_size)), blend
