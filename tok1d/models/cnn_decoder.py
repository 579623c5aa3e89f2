"""VQGAN's convolutional decoder (Esser et al. 2020, arXiv:2012.09841), as a head on a ViT's patch features.

From the patch grid up to the pixels: two residual blocks around an attention, then a level per multiplier,
the last one first, each of `cnn_blocks + 1` residual blocks (VQGAN's decoder has one more than its encoder),
with attention where a side is in `cnn_attention`, and twice the size before the next level. GroupNorm of 32
groups and swish; no dropout.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.config.schema import TokenizerConfig


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
        self.conv_out.weight.data *= 0.1  # start nearly grey: that learns faster than at full scale, or at 0
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
    """Twice the size, nearest neighbour, then a 3 x 3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def conv3(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)
