"""Networks that only measure, for perceptual losses, feature discriminators and alignment: which pretrained
files they need, where those come from, what to type without internet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.config.losses import has_perceptual_network
from tok1d.config.registry import TIMM
from tok1d.config.schema import LossConfig, StartConfig, TokenizerConfig
from tok1d.models.encoder import Encoder
from tok1d.models.pretrained import load_pretrained_encoder
from tok1d.models.weights import (
    ParamNames,
    Weights,
    fix_hint,
    hashed,
    local_file,
    read_weights,
    torch_hub_file,
)

VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"  # torchvision's; LPIPS was made with it
VGG16_SHA256 = "397923af"  # how its sha256 starts
DINO = TokenizerConfig(
    image_size=224, encoder_init="dino", encoder_size="S", num_latent_tokens=1, elastic=False
)
DINO_ASKED = ParamNames("", "", "discriminator_checkpoint", "discriminator=features adversarial_weight=1")
ALIGN_ASKED = ParamNames("align_to", "align_size", "align_checkpoint", "align_weight=1")


def loss_checkpoints(config: LossConfig) -> list[Weights]:
    """Every pretrained file that the losses of `config` need. Raises `ConfigError` if one cannot be had."""
    found = [perceptual_checkpoint(config)] if has_perceptual_network(config) else []
    if config.adversarial_weight and config.discriminator == "features":
        start = StartConfig(encoder_checkpoint=config.discriminator_checkpoint)
        found.append(read_weights(DINO, start, DINO_ASKED))
    if config.align_weight:
        backbone = TokenizerConfig(encoder_init=config.align_to, encoder_size=config.align_size)
        start = StartConfig(encoder_checkpoint=config.align_checkpoint)
        found.append(read_weights(backbone, start, ALIGN_ASKED))
    return found


def frozen_encoder(config: TokenizerConfig, file: str, names: ParamNames) -> tuple[Encoder, dict[str, str]]:
    """A pretrained ViT for a loss, loaded and proven like an encoder, and which it is: name, source, sha256.

    Leaves the random numbers of others as they are. Raises `ConfigError` if the file cannot be had or does
    not fit.
    """
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(config)
        report = load_pretrained_encoder(encoder, config, StartConfig(encoder_checkpoint=file), names=names)
    provenance = {
        "name": report["network"].split(".")[0],
        "source": report["source"],
        "sha256": report["sha256"],
    }
    return encoder, provenance


def perceptual_checkpoint(config: LossConfig) -> Weights:
    """VGG16's features, or timm's network. Raises `ConfigError` if they cannot be had, or are not sound."""
    if config.perceptual.startswith(TIMM):
        names = ParamNames("perceptual", "", "perceptual_checkpoint", "perceptual_weight=1")
        start = StartConfig(encoder_checkpoint=config.perceptual_checkpoint)
        return read_weights(TokenizerConfig(encoder_init=config.perceptual), start, names)
    hint = perceptual_fix_hint(config)
    if config.perceptual_checkpoint:
        path, source = local_file(config.perceptual_checkpoint, hint)
    else:
        path, source = torch_hub_file(VGG16_URL, VGG16_SHA256, hint), VGG16_URL
    return hashed(path, source, hint)


def perceptual_fix_hint(config: LossConfig) -> str:
    command = f"tok1d prefetch perceptual={config.perceptual} perceptual_weight=1"
    return fix_hint(command, "perceptual_checkpoint")


LEAST_SIDE = 32  # px; of a smaller image nothing would be left after the strides of a convolutional network


class Frozen(nn.Module):
    """A network that never learns: always in eval mode, no gradients of its own, in no checkpoint.

    It moves to a device with its parent, but is none of its submodules: the parent's `.train()`,
    `.parameters()` and `.state_dict()` do not see it. Gradients flow through it to its input.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self._hidden = (net.eval().requires_grad_(False),)

    @property
    def net(self) -> nn.Module:
        return self._hidden[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.net(*args, **kwargs)

    def _apply(self, function: Callable, recurse: bool = True) -> Frozen:
        self.net._apply(function, recurse)
        return super()._apply(function, recurse)


def enlarged(images: Tensor) -> Tensor:
    """Images [B, 3, H, W], bilinearly enlarged if a side is shorter than `LEAST_SIDE`."""
    scale = LEAST_SIDE / min(images.shape[-2:])
    return images if scale <= 1 else F.interpolate(images, scale_factor=scale, mode="bilinear")


class ImageDistance(nn.Module):
    """The mean over a batch of the distance between the features of two images; 0 if they are equal.

    `features` gives maps [B, C, h, w] of images [B, 3, H, W] in 0 … 1, `compare` the distance [B] of two
    lists of maps. `provenance` says where the features come from: name, source, sha256.
    """

    features: Callable[[Tensor], list[Tensor]]
    provenance: dict[str, str]

    def forward(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """Two [B, 3, H, W] in 0 … 1 -> scalar. Gradients reach the reconstruction only."""
        return self.distances(reconstruction, images).mean()

    def distances(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """The same for each image: [B]."""
        ours = self.features(enlarged(reconstruction))
        with torch.no_grad():
            theirs = self.features(enlarged(images))
        return self.compare(ours, theirs)

    def compare(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        raise NotImplementedError
