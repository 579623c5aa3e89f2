"""Networks that only measure, for perceptual losses, feature discriminators and alignment: which pretrained
files they need, where those come from, what to type without internet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.config.registry import TIMM
from tok1d.config.schema import LossConfig, StartConfig, TokenizerConfig
from tok1d.models.encoder import Encoder
from tok1d.models.pretrained import start_encoder
from tok1d.models.weights import Asked, Weights, hashed, local_file, read_weights, remedy, torch_hub_file

VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"  # torchvision's; LPIPS was made with it
VGG16_SHA256 = "397923af"  # how its sha256 starts
DINO = TokenizerConfig(image_size=224, encoder_init="dino", encoder_size="S", num_latent_tokens=1)
DINO_ASKED = Asked("", "", "discriminator_weights", "discriminator=features adversarial_weight=1")
ALIGN_ASKED = Asked("align_to", "align_size", "align_weights", "align_weight=1")


def loss_weights(config: LossConfig) -> list[Weights]:
    """Every pretrained file that the losses of `config` need. Raises `ConfigError` if one cannot be had."""
    found = [perceptual_weights(config)] if config.perceptual_weight else []
    if config.adversarial_weight and config.discriminator == "features":
        start = StartConfig(encoder_weights=config.discriminator_weights)
        found.append(read_weights(DINO, start, DINO_ASKED))
    if config.align_weight:
        backbone = TokenizerConfig(encoder_init=config.align_to, encoder_size=config.align_size)
        start = StartConfig(encoder_weights=config.align_weights)
        found.append(read_weights(backbone, start, ALIGN_ASKED))
    return found


def frozen_encoder(config: TokenizerConfig, file: str, asked: Asked) -> tuple[Encoder, dict[str, str]]:
    """A pretrained ViT for a loss, loaded and proven like an encoder, and which it is: name, source, sha256.

    Leaves the random numbers of others as they are. Raises `ConfigError` if the file cannot be had or does
    not fit.
    """
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(config)
        report = start_encoder(encoder, config, StartConfig(encoder_weights=file), asked=asked)
    facts = {"name": report["network"].split(".")[0], "source": report["source"], "sha256": report["sha256"]}
    return encoder, facts


def perceptual_weights(config: LossConfig) -> Weights:
    """VGG16's features, or timm's network. Raises `ConfigError` if they cannot be had, or are not sound."""
    if config.perceptual.startswith(TIMM):
        asked = Asked("perceptual", "", "perceptual_weights", "perceptual_weight=1")
        start = StartConfig(encoder_weights=config.perceptual_weights)
        return read_weights(TokenizerConfig(encoder_init=config.perceptual), start, asked)
    hint = perceptual_remedy(config)
    if config.perceptual_weights:
        path, source = local_file(config.perceptual_weights, hint)
    else:
        path, source = torch_hub_file(VGG16_URL, VGG16_SHA256, hint), VGG16_URL
    return hashed(path, source, hint)


def perceptual_remedy(config: LossConfig) -> str:
    command = f"tok1d prefetch perceptual={config.perceptual} perceptual_weight=1"
    return remedy(command, "perceptual_weights")


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
