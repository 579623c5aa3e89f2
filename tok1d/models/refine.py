"""The refining decoder: a small convolutional U-Net in pixels behind any tokenizer's decoder.

    refine = RefiningDecoder("small", max_tokens=64)
    better = refine(images, num_tokens=8)      # [B, 3, H, W] in 0 … 1 -> the same shape, not clamped

It starts as the identity (its last layer is zero) and is told how many tokens the image was made of, so one
network serves every prefix: what is missing differs, from whole cars at 1 token to the grain at 64. Pixels
are folded 2 x 2 into channels first, which quarters the cost of the finest level; images come back by
bilinear upsampling and two convolutions at full resolution (transposed convolutions and pixel shuffles left a
grid of 2 pixels: steps across it 0.62 of those inside, now 0.83). Fully convolutional: any size that is a
multiple of `multiple`; others are padded.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RefineSize(NamedTuple):
    widths: tuple[int, ...]  # channels of each level, the finest first
    blocks: int  # residual blocks a level, on the way down and on the way up


REFINE_SIZES = {
    "nano": RefineSize((32, 64, 96), 1),
    "small": RefineSize((64, 96, 128), 1),
    "base": RefineSize((96, 160, 224), 2),
}
FOLD = 2  # pixels a side that become channels


class RefiningDecoder(nn.Module):
    def __init__(self, size: str, max_tokens: int = 1):
        """`max_tokens` 1: of a tokenizer with one token count, which need not be told."""
        super().__init__()
        widths, blocks = REFINE_SIZES[size]
        self.multiple = FOLD * 2 ** (len(widths) - 1)
        known = 4 * widths[0] if max_tokens > 1 else 0
        self.condition = CountEmbedding(known, max_tokens) if max_tokens > 1 else None
        self.fold = nn.PixelUnshuffle(FOLD)
        self.conv_in = conv3(3 * FOLD**2, widths[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            shrink: list[nn.Module] = [nn.Conv2d(widths[level - 1], width, 2, 2)] if level else []
            self.down.append(Level(shrink, [ResBlock(width, known) for _ in range(blocks)]))
        for level in reversed(range(len(widths) - 1)):
            grow = [nn.Conv2d(widths[level + 1], widths[level], 1), upsample(2)]
            self.up.append(Level(grow, [ResBlock(widths[level], known) for _ in range(blocks)]))
        self.norm = nn.GroupNorm(8, widths[0])
        fine = max(16, widths[0] // FOLD**2)
        self.unfold = nn.Sequential(nn.Conv2d(widths[0], fine, 1), upsample(FOLD))
        self.conv_fine = conv3(fine + 3, fine)
        self.conv_out = conv3(fine, 3)
        nn.init.zeros_(self.conv_out.weight)
        self.conv_out.bias = nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor, num_tokens: int) -> Tensor:
        """images [B, 3, H, W], about 0 … 1, decoded from `num_tokens` tokens -> [B, 3, H, W]."""
        H, W = images.shape[-2:]
        padding = (0, -W % self.multiple, 0, -H % self.multiple)
        padded = F.pad(images, padding, mode="replicate") if any(padding) else images
        known = None
        if self.condition is not None:
            known = self.condition(images.new_tensor([float(num_tokens)]))  # [1, E]
        x = self.conv_in(self.fold(padded * 2 - 1))
        skips = []
        for level in self.down:
            x = level(x, known)
            skips.append(x)
        skips.pop()
        for level in self.up:
            x = level(x, known, skips.pop())
        x = torch.cat([self.unfold(F.silu(self.norm(x))), padded * 2 - 1], 1)  # [B, F + 3, H, W]
        rest = self.conv_out(F.silu(self.conv_fine(x)))
        return images + rest[..., :H, :W].float()


class Level(nn.Module):
    """A change of size, then residual blocks; on the way up what was there on the way down is added."""

    def __init__(self, resize: list[nn.Module], blocks: list[nn.Module]):
        super().__init__()
        self.resize, self.blocks = nn.Sequential(*resize), nn.ModuleList(blocks)

    def forward(self, x: Tensor, known: Tensor | None, skip: Tensor | None = None) -> Tensor:
        x = self.resize(x)
        if skip is not None:
            x = x + skip
        for block in self.blocks:
            x = block(x, known)
        return x


class ResBlock(nn.Module):
    """x + two 3 x 3 convolutions of it; between them each channel is scaled and shifted by what is known
    (FiLM, arXiv:1709.07871).
    """

    def __init__(self, width: int, known: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, width), conv3(width, width)
        self.norm2, self.conv2 = nn.GroupNorm(8, width), conv3(width, width)
        self.film = nn.Linear(known, 2 * width) if known else None
        nn.init.zeros_(self.conv2.weight)
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, known: Tensor | None) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.film is not None:
            scale, shift = self.film(known)[:, :, None, None].chunk(2, 1)
            h = torch.addcmul(h + shift, h, scale)
        return x + self.conv2(F.silu(h))


class CountEmbedding(nn.Module):
    """Token counts [B] -> what the blocks are told, [B, width]: bumps along log2 of the count."""

    places: Tensor

    def __init__(self, width: int, max_tokens: int, bumps: int = 8):
        super().__init__()
        self.register_buffer("places", torch.linspace(0, math.log2(max_tokens), bumps), persistent=False)
        self.spread = math.log2(max_tokens) / (bumps - 1)
        self.map = nn.Sequential(nn.Linear(bumps, width), nn.SiLU())

    def forward(self, counts: Tensor) -> Tensor:
        away = (counts.float().log2()[:, None] - self.places) / self.spread  # [B, bumps]
        return self.map(torch.exp(-0.5 * away.square()))


def conv3(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


def upsample(factor: int) -> nn.Upsample:
    return nn.Upsample(scale_factor=factor, mode="bilinear")
