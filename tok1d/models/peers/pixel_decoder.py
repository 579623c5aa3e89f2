"""From a grid of 256-dimensional codes to pixels, 16 times larger: the decoder of the MaskGIT VQGAN
(arXiv:2202.04200) in the form that TiTok's two-stage checkpoints carry inside (arXiv:2406.07550).

Its parts are named as the tensors in those files. Two things are not as in VQGAN: the convolutions of its
residual blocks have no bias, and where the width changes, the 1 x 1 convolution is applied to what the block
computed, not to its input.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

CODES, CODE_DIM = 1024, 256  # of the codebook that its inputs are mixed from
CHANNELS = 128
MULTIPLIERS = (1, 1, 2, 2, 4)  # of the levels, from full resolution down
BLOCKS = 2  # a level


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class PixelDecoder(nn.Module):
    """codes [B, 256, h, w] -> images [B, 3, 16 h, 16 w], about 0 … 1, not clamped."""

    def __init__(self) -> None:
        super().__init__()
        widths = [CHANNELS * m for m in MULTIPLIERS]
        self.conv_in = nn.Conv2d(CODE_DIM, widths[-1], 3, padding=1)
        self.mid = nn.ModuleList(ResBlock(widths[-1], widths[-1]) for _ in range(BLOCKS))
        inputs = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(
            Level(inputs[i], width, enlarges=i > 0) for i, width in enumerate(widths)
        )  # the last one comes first
        self.norm_out = norm(CHANNELS)
        self.conv_out = nn.Conv2d(CHANNELS, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.mid:
            x = block(x)
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks, then all but the last twice the size: nearest neighbor and a 3 x 3 convolution."""

    def __init__(self, channels: int, out: int, enlarges: bool):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(channels if i == 0 else out, out) for i in range(BLOCKS))
        if enlarges:
            self.upsample_conv = nn.Conv2d(out, out, 3, padding=1)
        self.enlarges = enlarges

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return self.upsample_conv(F.interpolate(x, scale_factor=2.0, mode="nearest")) if self.enlarges else x


class ResBlock(nn.Module):
    def __init__(self, channels: int, out: int):
        super().__init__()
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.norm2, self.conv2 = norm(out), nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.same = channels == out
        if not self.same:
            self.nin_shortcut = nn.Conv2d(out, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (x if self.same else self.nin_shortcut(h)) + h
