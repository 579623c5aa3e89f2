"""Texture without a trained network: how strong each orientation is at each scale, window by window.

    distance = texture(reconstruction, images)     # both [B, 3, H, W] in 0 … 1 -> scalar

What no token tells, such as where each leaf is, the mean squared error answers with a blur. Energies of
filters over windows forget where in a window things are, so that a texture of the right strength is better
than none. They need no learned filters: statistics of one layer of fixed filters at several scales describe
textures about as well as VGG's (Ustyuzhaninov et al. 2016, arXiv:1606.00021; over windows: Freeman and
Simoncelli 2011, doi:10.1038/nn.2889).

The filters are Gabor's: pairs of waves, a quarter apart, of two frequencies and six orientations, in
luminance on images at full size, and in colors too at half and quarter size. A pair's root mean square in
windows of 4 x 4 is compared relative to that of the original, as the eye sees contrast: without that, a few
strong edges would be all that counts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tok1d.losses.frozen import ImageDistance

SIDE = 7  # pixels of a filter
FREQUENCIES = (0.35, 0.2)  # waves a pixel
ORIENTATIONS = 6
OCTAVES = 3  # full, half and quarter size
WINDOW = 4  # pixels a side, at each size; windows overlap by half
OPPONENT = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))  # luminance, red - blue, green - magenta
COLOR = 0.3  # weight of each difference of colors, luminance has 1
FAINT, FLAT = 0.02, 0.1  # of a filter's mean energy in an image: less is alike in both, and is no contrast
EPS = 1e-4  # energy that every image has: a hundredth of the range


class TextureLoss(ImageDistance):
    """The distance between the textures of two images.

    It needs no file: the same numbers in every process and on every machine.
    """

    filters: Tensor  # [3 F, 1, 7, 7]: for each color channel all F, pairs side by side
    opponent: Tensor  # [3, 3, 1, 1]
    weights: Tensor  # [3 F / 2, 1, 1]

    def __init__(self) -> None:
        super().__init__()
        self.provenance = {
            "name": "energies of Gabor filters",
            "source": "computed, not learned",
            "sha256": "",
        }
        filters, colors = gabor_pairs(), torch.tensor(OPPONENT)
        weights = torch.tensor((1.0, COLOR, COLOR)).repeat_interleave(len(filters) // 2)
        self.register_buffer("filters", filters[:, None].repeat(3, 1, 1, 1), persistent=False)
        unit = colors / colors.norm(dim=1, keepdim=True)
        self.register_buffer("opponent", unit[:, :, None, None], persistent=False)
        self.register_buffer("weights", weights[:, None, None], persistent=False)

    def compare(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        total = theirs[0].new_zeros(len(theirs[0]))
        for a, b in zip(ours, theirs, strict=True):
            mean = b.mean((2, 3), keepdim=True) + EPS
            difference = (a + FAINT * mean).sqrt() - (b + FAINT * mean).sqrt()
            weights = self.weights[: b.shape[1]]
            total = total + (weights * difference.square() / (b + FLAT * mean)).mean((1, 2, 3))
        return total / OCTAVES

    def features(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> the mean square of each pair in each window, [B, C, h, w] float32, at each size."""
        x, found = F.conv2d(images, self.opponent.to(images.dtype)), []
        for octave in range(OCTAVES):
            if octave:
                x = F.avg_pool2d(x, 2)
            seen = x if octave else x[:, :1]  # JPEG keeps no colors at full size
            filters = self.filters[: seen.shape[1] * len(self.filters) // 3].to(x.dtype)
            padded = F.pad(seen, (SIDE // 2,) * 4, mode="reflect")
            responses = F.conv2d(padded, filters, groups=seen.shape[1]).float()
            pairs = responses.square().unflatten(1, (-1, 2)).mean(2)
            found.append(F.avg_pool2d(pairs, WINDOW, WINDOW // 2))
        return found


def gabor_pairs() -> Tensor:
    """Waves under a Gaussian, [F, 7, 7], even and odd side by side: their mean is 0, their length 1."""
    t = torch.arange(SIDE, dtype=torch.float32) - SIDE // 2
    y, x = torch.meshgrid(t, t, indexing="ij")
    found = []
    for frequency in FREQUENCIES:
        window = torch.exp(-(x * x + y * y) / 2 * (frequency / 0.45) ** 2)
        for i in range(ORIENTATIONS):
            angle = math.pi * i / ORIENTATIONS
            along = 2 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle))
            for phase in (0.0, math.pi / 2):
                wave = window * torch.cos(along + phase)
                wave = wave - window * (wave.sum() / window.sum())
                found.append(wave / wave.norm())
    return torch.stack(found)
