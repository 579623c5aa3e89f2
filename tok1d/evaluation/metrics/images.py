"""How far each reconstruction is from its original: two [B, 3, H, W] in 0 … 1 -> one number an image, [B].

A metric is a row of `tok1d.config.registry.METRICS` and here a function under `@image_metric` of that name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.registry import METRICS
from tok1d.config.schema import EvalConfig, LossConfig
from tok1d.losses.frozen import ImageDistance
from tok1d.losses.perceptual import build_perceptual

WINDOW, SIGMA = 11, 1.5  # pixels; Wang et al. 2004
C1, C2 = 0.01**2, 0.03**2
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM's five scales, Wang et al. 2003
BLOCK, EPS = 8, 1e-6  # pixels; what flat images have instead of a step
MS_SSIM_FROM = 1 + (WINDOW - 1) * 2 ** (len(BETAS) - 1)  # pixels: the window must fit into the last scale


Measure = Callable[[Tensor, Tensor], Tensor]  # reconstruction, original [B, 3, H, W] -> [B]


class ImageMetric(NamedTuple):
    measure: Measure
    card: dict[str, Any]  # for the card


class Formula(NamedTuple):
    measure: Measure
    smallest: int  # pixels, the side of images that it can measure


FORMULAS: dict[str, Formula] = {}  # the metrics of single images that need no network


def image_metric(name: str, smallest: int = 1) -> Callable[[Measure], Measure]:
    """A decorator: the function measures this row of `METRICS`, in images of `smallest` pixels or more."""

    def register(measure: Measure) -> Measure:
        FORMULAS[name] = Formula(measure, smallest)
        return measure

    return register


@image_metric("psnr")
def psnr(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, dB. Equal images give 100 dB."""
    mse = (reconstruction - original).square().mean((1, 2, 3))
    return -10 * mse.clamp_min(1e-10).log10()


@image_metric("ssim")
def ssim(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), as torchmetrics computes it, in a third of its time."""
    return similarity(reconstruction, original)[0]


@image_metric("ms_ssim", smallest=MS_SSIM_FROM)
def ms_ssim(reconstruction: Tensor, original: Tensor) -> Tensor:
    """SSIM at five scales (Wang et al. 2003), as torchmetrics; images of `MS_SSIM_FROM` pixels or more."""
    product = original.new_ones(len(original))
    for i, beta in enumerate(BETAS):
        if i:
            reconstruction, original = F.avg_pool2d(reconstruction, 2), F.avg_pool2d(original, 2)
        whole, contrast = similarity(reconstruction, original)
        product *= (whole if i == len(BETAS) - 1 else contrast).relu() ** beta
    return product


@image_metric("sharpness", smallest=2)
def sharpness(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Mean absolute gradient over that of the original: 1 if it is as sharp, less for a blur."""
    own, real = (torch.cat(steps(images), 1).mean(1) for images in (reconstruction, original))
    return (own + EPS) / (real + EPS)


@image_metric("seams", smallest=2 * BLOCK)
def seams(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Mean step across the borders of blocks of 8 pixels over the mean step inside them: about 1 without
    seams, as in originals, more where patches are decoded each for itself.
    """
    across, inside = steps(reconstruction)
    return (across.mean(1) + EPS) / (inside.mean(1) + EPS)


def steps(images: Tensor) -> tuple[Tensor, Tensor]:
    """[B, 3, H, W] -> absolute differences of neighbours, [B, n] across borders of blocks and inside them."""
    across, inside = [], []
    for side in (2, 3):
        differences = images.diff(dim=side).abs()
        border = torch.arange(1, images.shape[side], device=images.device) % BLOCK == 0
        across.append(select(differences, border, side))
        inside.append(select(differences, ~border, side))
    return torch.cat(across, 1), torch.cat(inside, 1)


def select(x: Tensor, where: Tensor, side: int) -> Tensor:
    """What a mask along one side keeps, [B, n]."""
    return x.index_select(side, where.nonzero()[:, 0]).flatten(1)


def similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and its part without luminance at least 5 pixels from the border: [B] each."""
    mean_a, mean_b = blur(a), blur(b)
    squares, both = mean_a.square() + mean_b.square(), mean_a * mean_b
    contrast = (2 * (blur(a * b) - both) + C2) / (blur(a * a + b * b) - squares + C2)
    whole = contrast * (2 * both + C1) / (squares + C1)
    edge = WINDOW // 2
    return whole.mean((1, 2, 3)), contrast[..., edge:-edge, edge:-edge].mean((1, 2, 3))


def blur(x: Tensor) -> Tensor:
    """Gaussian mean around each pixel of [B, 3, H, W], mirrored at the border: a matrix from each side."""
    return window(x.shape[2]).to(x) @ x @ window(x.shape[3]).to(x).T


@functools.lru_cache(maxsize=16)
def window(size: int) -> Tensor:
    """The matrix [size, size] of Gaussian means around each pixel of a line, mirrored at its ends."""
    steps = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-0.5 * (steps / SIGMA) ** 2)
    places = (torch.arange(size)[:, None] + steps.long()).abs()  # [size, 11]
    places = torch.where(places < size, places, 2 * size - 2 - places)
    return (
        torch.zeros(size, size, dtype=torch.float64)
        .scatter_add_(1, places, (weights / weights.sum()).expand(size, -1))
        .float()
    )


def build_image_metrics(
    config: EvalConfig, size: int, device: torch.device | str
) -> tuple[dict[str, ImageMetric], list[str]]:
    """The asked metrics of single images by name, and what must be said of them.

    Raises `ConfigError` if LPIPS is asked for and its weights cannot be had.
    """
    found: dict[str, ImageMetric] = {}
    warnings: list[str] = []
    for name, formula in FORMULAS.items():
        metric = METRICS[name]
        if name in config.metrics and size >= formula.smallest:
            found[name] = ImageMetric(formula.measure, {"name": metric.card})
        elif name in config.metrics:
            label, least = metric.numbers[name].label, formula.smallest
            warnings.append(f"{label} is left out: it needs images of {least} pixels, these have {size}")
    if "lpips" in config.metrics:
        network = lpips(config).to(device).eval()
        name = "lpips" if network.provenance["name"].startswith("LPIPS") else "vgg_distance"
        card = {"name": network.provenance["name"], "weights_sha256": network.provenance["sha256"]}
        found[name] = ImageMetric(network.distances, card)
        if name != "lpips":
            warnings.append(
                f"{network.provenance['source']} is not the VGG16 that LPIPS was made with: "
                f"the number is a VGG16 distance, not LPIPS"
            )
    return found, warnings


def lpips(config: EvalConfig) -> ImageDistance:
    """The loss of that name, as a measure. Raises `ConfigError`, which names the parameter of evaluations."""
    try:
        return build_perceptual(LossConfig(perceptual="lpips", perceptual_checkpoint=config.lpips_checkpoint))
    except ConfigError as error:
        sentence = str(error).replace("perceptual=lpips perceptual_weight=1", "metrics=lpips")
        raise ConfigError(sentence.replace("perceptual_checkpoint=", "lpips_checkpoint=")) from None
