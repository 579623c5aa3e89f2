"""Features of whole images, for distances between sets: FID's Inception, and DINOv2.

    extractor = build_extractor("inception", weights="inception.pth")
    features = extractor(images)     # uint8 [B, 3, H, W] -> float32 [B, 2048]

| name      | network                                         | features                      |
|-----------|-------------------------------------------------|-------------------------------|
| inception | the one of 2015-12-05 by which FID is defined   | 2048, of its last pooling     |
| dinov2    | DINOv2 of size S, B or L, its own patches of 14 | 384, 768 or 1024, class token |

Inception was trained to tell 1000 kinds of things apart, and judges accordingly; distances of DINOv2's
features agree with people's judgement better (Stein et al., arXiv:2306.04675, who take size L at 224 px).

They are kept on disk, found again by what they are features of: memory does not grow with the number of
images.

    store = FeatureStore(folder, extractor.dim, {"data_fingerprint": …})
    if not store.complete:
        with store:
            for batch in images.batches(50, count):
                store.append(extractor(batch))
    features = store.features      # float32 [N, D], memory-mapped
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity import feature_extractor_inceptionv3 as inception

from tok1d.config.fields import ConfigError
from tok1d.config.registry import METRICS
from tok1d.config.schema import EvalConfig, LossConfig, StartConfig, TokenizerConfig
from tok1d.losses.frozen import frozen_encoder, perceptual_checkpoint
from tok1d.models.vit import ViT
from tok1d.models.weights import (
    ParamNames,
    Weights,
    fix_hint,
    hashed,
    local_file,
    read_weights,
    torch_hub_file,
)
from tok1d.system.files import replacing


class FeatureStore:
    """The features of one set of images by one network, in one file below `folder`.

    The file's name is a hash of `identity`: whatever decides the features must be in there, such as their
    `count`. It appears once the `with` block ends, whole, and not at all if that fails.
    """

    def __init__(self, folder: str | Path, dim: int, identity: dict[str, Any]):
        key = hashlib.sha256(json.dumps(identity | {"dim": dim}, sort_keys=True).encode()).hexdigest()[:16]
        self.path, self.dim, self.identity = Path(folder) / f"{key}.f32", dim, identity

    @property
    def complete(self) -> bool:
        return self.path.is_file()

    @property
    def features(self) -> np.ndarray:
        """float32 [N, D]; writing to it leaves the file as it is."""
        return np.memmap(self.path, np.float32, mode="c").reshape(-1, self.dim)

    def __enter__(self) -> FeatureStore:
        self._replacing = replacing(self.path)
        self._file = open(self._replacing.__enter__(), "wb")
        return self

    def append(self, features: Tensor) -> None:
        """The next images' features, [B, D]."""
        self._file.write(features.detach().float().cpu().contiguous().numpy().data)

    def __exit__(self, *error: Any) -> None:
        self._file.close()
        if error[0] is None:
            with replacing(self.path.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps(self.identity, indent=1) + "\n", encoding="utf-8")
        self._replacing.__exit__(*error)


INCEPTION_SHA256 = "6726825d"  # how the sha256 of torch-fidelity's file starts
INCEPTION_REMEDY = fix_hint("tok1d prefetch metrics=rfid", "inception_checkpoint")
DINO_ASKED = ParamNames("", "dino_size", "dino_checkpoint", "metrics=frechet_dinov2")
DINO_SIDE = 224  # px: 16 x 16 patches
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Extractor(nn.Module):
    """A frozen network in eval mode. `card` say what two distances must share to be compared."""

    def __init__(self, net: nn.Module, name: str, dim: int, dtype: str, card: dict[str, Any]):
        super().__init__()
        self.net = net
        self.name, self.dim, self.dtype = name, dim, DTYPES[dtype]
        self.card = card | {"dtype": dtype, "torch": torch.__version__}
        for layer in self.net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(self.dtype).float()
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> float32 [B, dim].

        Convolutions and linear layers have weights of `dtype`; on a GPU they compute in it, too.
        """
        less = self.dtype != torch.float32 and images.is_cuda  # CPUs have no quick float16
        with torch.autocast(images.device.type, self.dtype, enabled=less):
            return self.net(images).float()


class Inception(inception.FeatureExtractorInceptionV3):
    """torch-fidelity's network, from the file at `path`.

    Its normalisations are folded into the convolutions, and channels lie innermost: 30 % less time on a CPU,
    features that differ by 1e-6 of the largest.
    """

    def __init__(self, path: str):
        super().__init__("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)
        for block in self.eval().modules():
            if isinstance(block, inception.BasicConv2d):
                block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[0]


class ClassToken(nn.Module):
    """uint8 images -> what a ViT's class token becomes, after its last norm [B, D]."""

    mean: Tensor
    std: Tensor

    def __init__(self, vit: ViT, mean: Tensor, std: Tensor):
        super().__init__()
        self.vit = vit
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        images = images.float() / 255
        if images.shape[-2:] != (DINO_SIDE, DINO_SIDE):
            images = F.interpolate(images, (DINO_SIDE, DINO_SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        return self.vit.forward_features((images - self.mean) / self.std)[:, 0]


def build_extractor(name: str, weights: str = "", size: str = "B", dtype: str = "float32") -> Extractor:
    """The network by name, from a local file or else fetched; `size` is DINOv2's, `dtype` one of `DTYPES`.

    Leaves the random numbers of others as they are. Raises `ConfigError` if its weights cannot be had, or are
    for another network.
    """
    return (build_inception if name == "inception" else build_dinov2)(weights, size, dtype)


def extractor_weights(name: str, weights: str = "", size: str = "B") -> Weights:
    """The file that `build_extractor` reads. Raises `ConfigError` if it cannot be had, or is not sound."""
    if name == "dinov2":
        return read_weights(dino_config(size), StartConfig(encoder_checkpoint=weights), DINO_ASKED)
    if weights:
        path, source = local_file(weights, INCEPTION_REMEDY)
    else:
        source = inception.URL_INCEPTION_V3
        path = torch_hub_file(source, INCEPTION_SHA256, INCEPTION_REMEDY)
    return hashed(path, source, INCEPTION_REMEDY)


def build_inception(weights: str, size: str, dtype: str) -> Extractor:
    file = extractor_weights("inception", weights)
    try:
        with torch.random.fork_rng(devices=[]):
            net = Inception(str(file.path))
    except Exception as error:  # torch's, of many lines
        what = str(error).strip().split("\n")[-1].strip()[:80]
        raise ConfigError(
            f"{file.source} is not for the Inception of FID ({what}): {INCEPTION_REMEDY}"
        ) from None
    card = {
        "network": "Inception of 2015-12-05",
        "features": "last pooling",
        "source": file.source,
        "sha256": file.sha256,
        "input": "uint8 to 299 px by TensorFlow 1's bilinear without antialiasing, (x - 128) / 128",
        "library": f"torch-fidelity {version('torch-fidelity')}",
    }
    return Extractor(net, "inception", 2048, dtype, card)


def build_dinov2(weights: str, size: str, dtype: str) -> Extractor:
    encoder, found = frozen_encoder(dino_config(size), weights, DINO_ASKED)
    card = {
        "network": found["name"],
        "features": "class token",
        "source": found["source"],
        "sha256": found["sha256"],
        "input": f"uint8 / 255 to {DINO_SIDE} px by antialiased bicubic, ImageNet's mean and deviation",
        "library": f"timm {version('timm')}",
    }
    net = ClassToken(encoder.vit, encoder.mean, encoder.std)
    return Extractor(net, "dinov2", encoder.width, dtype, card)


def dino_config(size: str) -> TokenizerConfig:
    """DINOv2 with its own patches, so that only its positions are resampled, from 37 x 37 to 16 x 16."""
    return TokenizerConfig(
        image_size=DINO_SIDE,
        patch_size=14,
        encoder_init="dinov2",
        encoder_size=size,
        num_latent_tokens=1,
        elastic=False,
        token_mixing=False,
    )


def networks_of(metrics: Iterable[str]) -> list[str]:
    """The networks whose features these metrics compare, each once."""
    return list(dict.fromkeys(METRICS[name].network for name in metrics if METRICS[name].network))


def checkpoint_of(network: str, config: EvalConfig) -> str:
    """The local file that `config` names for one of the networks; empty: it is fetched."""
    return {"inception": config.inception_checkpoint, "dinov2": config.dino_checkpoint}[network]


def metric_checkpoints(config: EvalConfig) -> list[Weights]:
    """Every file that the metrics of `config` need. Raises `ConfigError` if one cannot be had."""
    networks = networks_of(config.metrics)
    found = [extractor_weights(name, checkpoint_of(name, config), config.dino_size) for name in networks]
    if "lpips" in config.metrics:
        loss = LossConfig(perceptual="lpips", perceptual_checkpoint=config.lpips_checkpoint)
        found.append(perceptual_checkpoint(loss))
    return found
