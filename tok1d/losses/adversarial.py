"""The adversarial game: discriminators by name, hinge losses, their adaptive weight, LeCam's regularization.

    logits = discriminator(images)         # [B, 3, H, W] in 0 … 1 -> [B, …], high for real

None has batch statistics, which would depend on how a batch is spread over processes: where the papers have
BatchNorm, GroupNorm (arXiv:1803.08494) stands.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from tok1d.config.schema import LossConfig
from tok1d.distributed import mean_over_processes
from tok1d.losses.frozen import DINO, DINO_ASKED, Frozen, enlarged, frozen_encoder
from tok1d.models.encoder import Encoder


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
        return self.net(enlarged(images) * 2 - 1).float()


class Taps(nn.Module):
    """Images [B, 3, H, W] in 0 … 1 of any size -> a ViT's patch tokens [B, N, D] after each of `blocks`."""

    def __init__(self, encoder: Encoder, side: int, blocks: tuple[int, ...]):
        super().__init__()
        self.encoder, self.side, self.blocks = encoder, side, blocks

    def forward(self, images: Tensor) -> Any:
        images = images.float()  # the antialiased resize knows no bfloat16
        if images.shape[-2:] != (self.side, self.side):
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        return self.encoder.vit.forward_intermediates(
            (images - self.encoder.mean) / self.encoder.std,
            indices=list(self.blocks),
            output_fmt="NLC",
            intermediates_only=True,
        )


class FeatureDiscriminator(nn.Module):
    """StyleGAN-T's (Sauer et al. 2023, arXiv:2301.09515): small heads on the features of a frozen DINO ViT-S.

    A head on the patch tokens after every third block; `provenance` says which file the ViT is. Without that
    paper's random crops and augmentations, and with GroupNorm for its BatchNorm over parts of the batch.
    """

    def __init__(self, encoder: Encoder, side: int, provenance: dict[str, str]):
        super().__init__()
        blocks = tuple(range(2, len(encoder.vit.blocks), 3))
        self.taps, self.provenance = Frozen(Taps(encoder, side, blocks)), provenance
        self.heads = nn.ModuleList(Head(encoder.width) for _ in blocks)

    def forward(self, images: Tensor) -> Tensor:
        """images [B, 3, H, W] in 0 … 1 -> logits [B, n], one per block and patch of the ViT."""
        taps = self.taps(images)  # [B, N, D] each
        return torch.cat([head(x) for head, x in zip(self.heads, taps, strict=True)], dim=1).float()


class Head(nn.Module):
    """[B, N, D] -> logits [B, N]: along the patches in reading order, as StyleGAN-T does, a ring of them."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.wide = self._block(width, 1), self._block(width, 9)
        self.last = spectral_norm(nn.Conv1d(width, 1, 1))

    @staticmethod
    def _block(width: int, kernel: int) -> nn.Sequential:
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, padding_mode="circular")
        return nn.Sequential(spectral_norm(conv), nn.GroupNorm(32, width), nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.transpose(1, 2))  # [B, D, N]
        x = (x + self.wide(x)) * 0.5**0.5
        return self.last(x).flatten(1)


def build_discriminator(config: LossConfig) -> nn.Module:
    """The network that `config.discriminator` names, what it learns random.

    Raises `ConfigError` if the frozen network of `features` cannot be had.
    """
    if config.discriminator == "patchgan":
        return PatchGAN()
    encoder, provenance = frozen_encoder(DINO, config.discriminator_checkpoint, DINO_ASKED)
    return FeatureDiscriminator(encoder, DINO.image_size, provenance)


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss (Lim & Ye 2017, arXiv:1705.02894): real logits are to be over 1, fake ones under -1."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    return -fake.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """‖∇ reconstruction‖ / ‖∇ adversarial‖ at the decoder's last layer (VQGAN, arXiv:2012.09841), at most
    1e4.

    Both are this process's gradients; the ratio is that of the whole batch.
    """
    reconstruction, adversarial = mean_over_processes(torch.stack([reconstruction, adversarial]).float())
    return (reconstruction.norm() / (adversarial.norm() + 1e-4)).clamp(0, 1e4)


class LeCam(nn.Module):
    """Keeps the logits near their opposites' running means, so that few images do not make the discriminator
    sure of itself (Tseng et al. 2021, arXiv:2104.03310).
    """

    means: Tensor  # [2], of real and of fake logits

    def __init__(self, decay: float = 0.999):
        super().__init__()
        self.decay = decay
        self.register_buffer("means", torch.zeros(2))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Logits of any shape -> a scalar."""
        with torch.no_grad():
            now = mean_over_processes(torch.stack([real.mean(), fake.mean()]).float())
            self.means.lerp_(now, 1 - self.decay)
        return F.relu(real - self.means[1]).square().mean() + F.relu(self.means[0] - fake).square().mean()
