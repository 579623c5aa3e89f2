"""Discriminators by name: networks that tell reconstructions from images.

    logits = discriminator(images)         # [B, 3, H, W] in 0 … 1 -> [B, …], high for real

None has batch statistics, which would depend on how a batch is spread over processes: where the papers have
BatchNorm, GroupNorm (arXiv:1803.08494) stands.
"""

from __future__ import annotations

from torch import Tensor, nn

from tok1d.config import LossConfig
from tok1d.frozen import enlarged


class PatchGAN(nn.Module):
    """VQGAN's discriminator (pix2pix, arXiv:1611.07004; arXiv:2012.09841), with GroupNorm.

    4 x 4 convolutions, `layers` of stride 2 and two of stride 1; a logit judges 70 x 70 pixels.
    """

    def __init__(self, channels: int = 64, layers: int = 3):
        super().__init__()
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        blocks: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(layers):
            stride = 2 if i < layers - 1 else 1
            conv = nn.Conv2d(widths[i], widths[i + 1], 4, stride, 1, bias=False)
            blocks += [conv, nn.GroupNorm(32, widths[i + 1]), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*blocks, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.GroupNorm):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """images [B, 3, H, W] in 0 … 1 -> logits [B, 1, h, w], about H/8 - 2 a side."""
        return self.net(enlarged(images) * 2 - 1)


def build_discriminator(config: LossConfig) -> nn.Module:
    """The network that `config.discriminator` names, with random trainable weights."""
    return PatchGAN()
