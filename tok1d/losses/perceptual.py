"""Perceptual losses by name: how far apart two images are to a network that was trained to recognise things.

    distance = perceptual(reconstruction, images)     # both [B, 3, H, W] in 0 … 1 -> scalar

All compare feature maps place by place, each place's vector scaled to length 1, as LPIPS does:

- `lpips` (Zhang et al. 2018, arXiv:1801.03924): VGG16 after the last convolution of each of its five blocks,
  squared differences weighed per channel by the linear layers that were fitted to human judgements (they ship
  inside torchmetrics), averaged over places, summed over blocks. The same number as torchmetrics' LPIPS.
- `vgg`: the same maps of the same network without those weights; the mean over blocks, in 0 … 4.
- `timm:NAME`: the same for the last map at each scale of any convolutional network of timm. TiTok
  (arXiv:2406.07550) compares the logits of ConvNeXt-S, `timm:convnext_small`. Logits have given up where
  things are; its four stages know that too, and need no size of 224 px.

`texture` alone has no trained network: see `tok1d.losses.texture`.
"""

from __future__ import annotations

import difflib
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from tok1d.config.fields import ConfigError
from tok1d.config.registry import TIMM
from tok1d.config.schema import LossConfig
from tok1d.losses.frozen import (
    VGG16_SHA256,
    Frozen,
    ImageDistance,
    perceptual_checkpoint,
    perceptual_fix_hint,
)
from tok1d.losses.texture import TextureLoss
from tok1d.models.weights import Weights, read_file

VGG16_LAYERS = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
EARLY = 3  # maps of vgg_early: textures and edges, in half the time of all five
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PerceptualLoss(ImageDistance):
    """The distance between the features of a trained network.

    `channels` holds a weight vector [C] for each map of `features`, or is empty: then all weigh the same.
    """

    def __init__(self, features: nn.Module, channels: list[Tensor], provenance: dict[str, str]):
        super().__init__()
        self.features = Frozen(features)
        self.provenance = provenance
        self.count = len(channels)
        for i, weight in enumerate(channels):
            self.register_buffer(f"channels_{i}", weight.view(1, -1, 1, 1), persistent=False)

    def compare(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        places = [(unit(a) - unit(b)).square() for a, b in zip(ours, theirs, strict=True)]  # [B, C, h, w]
        if self.count:
            places = [d * getattr(self, f"channels_{i}") for i, d in enumerate(places)]
        total = sum((d.sum(1).mean((1, 2)) for d in places), places[0].new_zeros(()))
        return total if self.count else total / len(places)


def unit(x: Tensor) -> Tensor:
    """Each place's vector of a map [B, C, h, w] at length 1, in float32; where all is 0 it stays 0."""
    x = x.float()
    return x * (x.square().sum(1, keepdim=True) + 1e-8).rsqrt()


class VGG16(nn.Module):
    """VGG16's convolutions with torchvision's names: images in 0 … 1 -> the five maps of `VGG16_LAYERS`."""

    def __init__(self, maps: int = len(VGG16_LAYERS)):
        """`maps`: the first of them; fewer take less time."""
        super().__init__()
        layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
        self.layers = layers[: VGG16_LAYERS[maps - 1] + 1]
        self.standardise = Standardise(*IMAGENET)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.standardise(images), []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in VGG16_LAYERS:
                maps.append(x)
        return maps


class ConvNet(nn.Module):
    """A network of timm: images in 0 … 1 -> the last map at each of its scales."""

    def __init__(self, net: Any):  # timm's networks have no common type
        super().__init__()
        self.net = net
        self.standardise = Standardise(net.pretrained_cfg["mean"], net.pretrained_cfg["std"])

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.net.forward_intermediates(self.standardise(images), intermediates_only=True)


class Standardise(nn.Module):
    """Images in 0 … 1 -> minus the mean, over the standard deviation, that a network was trained with."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def build_perceptual(config: LossConfig) -> ImageDistance:
    """The loss that `config.perceptual` names, with its pretrained weights if it has any.

    Leaves the random numbers of others as they are. Raises `ConfigError` if a file cannot be had or does not
    fit.
    """
    if config.perceptual == "texture":
        return TextureLoss()
    with torch.random.fork_rng(devices=[]):
        if config.perceptual.startswith(TIMM):
            features: Any = build_convnet(config)
        else:
            features = VGG16(EARLY if config.perceptual == "vgg_early" else len(VGG16_LAYERS))
    weights = perceptual_checkpoint(config)
    if isinstance(features, ConvNet):
        load_convnet(features, weights, config)
    else:
        load_vgg16(features, weights, config)
    name = config.perceptual
    if name == "lpips":
        real = weights.sha256.startswith(VGG16_SHA256)
        name = "LPIPS (VGG16)" if real else "VGG16 distance with LPIPS's linear layers, not LPIPS"
    elif name in ("vgg", "vgg_early"):
        name = "VGG16 feature distance" + (" to relu3_3" if name == "vgg_early" else "")
    provenance = {"name": name, "source": weights.source, "sha256": weights.sha256}
    return PerceptualLoss(features, linear_layers() if config.perceptual == "lpips" else [], provenance)


def linear_layers() -> list[Tensor]:
    """LPIPS's weights per channel, of the five maps of VGG16."""
    path = Path(str(files("torchmetrics") / "functional" / "image" / "lpips_models" / "vgg.pth"))
    state = read_file(path, "reinstall torchmetrics")
    return [state[f"lin{i}.model.1.weight"].flatten() for i in range(5)]


def load_vgg16(net: VGG16, weights: Weights, config: LossConfig) -> None:
    """Fill in the convolutions, with or without `features.` before their names; a classifier is ignored."""
    state = {k.removeprefix("features."): v for k, v in weights.state.items() if not k.startswith("classif")}
    later = [k for k in state if k.split(".")[0].isdecimal() and int(k.split(".")[0]) >= len(net.layers)]
    state = {k: v for k, v in state.items() if k not in later}
    fill(net.layers, state, "VGG16", weights, config)


def load_convnet(net: ConvNet, weights: Weights, config: LossConfig) -> None:
    """Fill in a network of timm from a file in timm's names, or in others that timm can read."""
    rename = getattr(sys.modules[type(net.net).__module__], "checkpoint_filter_fn", None)
    try:
        state = rename(dict(weights.state), net.net) if rename else weights.state
    except Exception:  # a foreign file, whose names timm cannot read: `fill` says which
        state = weights.state
    heads = net.net.pretrained_cfg["classifier"] or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    state = {k: v for k, v in state.items() if not k.startswith(heads)}
    fill(net.net, state, config.perceptual, weights, config)


def fill(net: nn.Module, state: dict[str, Tensor], name: str, weights: Weights, config: LossConfig) -> None:
    """Load all of `state`, and nothing but it. Raises `ConfigError` that names the first misfit."""
    own = net.state_dict()
    misfits = [
        *(f"{k} is missing" for k in own if k not in state),
        *(f"{k} is unexpected" for k in state if k not in own),
        *(f"{k} has another shape" for k in own if k in state and own[k].shape != state[k].shape),
    ]
    if misfits:
        raise ConfigError(
            f"{weights.source} is not for {name} ({misfits[0]}, {len(misfits)} in all): "
            f"{perceptual_fix_hint(config)}"
        )
    net.load_state_dict(state)


def build_convnet(config: LossConfig) -> ConvNet:
    """timm's network without a head, random. Raises `ConfigError` if there is none, or it is of no use."""
    name = config.perceptual.removeprefix(TIMM)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean timm:{close[0]}?" if close else "for example type timm:convnext_small"
        raise ConfigError(
            f"perceptual=timm:{name} is no model that this timm ({timm.__version__}) knows: {hint}"
        )
    net = ConvNet(timm.create_model(name, num_classes=0).eval())
    try:
        with torch.no_grad():  # images of any size must do, which a ViT refuses
            sides = [x.shape[-1] for x in net(torch.zeros(1, 3, 64, 64))]
    except Exception:
        sides = []
    if len(sides) < 2 or sides[-1] >= sides[0]:
        raise ConfigError(
            f"perceptual=timm:{name} gives no maps at several scales: type for example "
            f"perceptual=timm:convnext_small"
        )
    return net
