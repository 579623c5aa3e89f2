"""Every name that a parameter may take: encoder initializations, quantizers, metrics, diagnoses; a row each.

Only names and facts, so that a parameter file is checked at once. What stands behind them is elsewhere: the
networks in `tok1d.models`, the metrics in `tok1d.evaluation`, the diagnoses in `tok1d.training.symptoms`.
How to add one is in CONTRIBUTING.md.

| encoder_init | sizes on the hub | what its network has beyond a plain ViT |
|---|---|---|
| mae (arXiv:2111.06377) | B L | |
| clip (DFN-2B, arXiv:2309.17425) | B L | pre-norm, no patch bias, norms of eps 1e-5 |
| dino (arXiv:2104.14294) | S B | |
| dinov2 (arXiv:2304.07193) | S B L | LayerScale |
| dinov2_reg (arXiv:2309.16588) | S B L | LayerScale, 4 registers |
| depth_anything_v2 (arXiv:2406.09414) | S B L | LayerScale |
| dinov3 (arXiv:2508.10104) | S B L | LayerScale, 4 registers, rotary positions, no qkv bias |
| siglip2 (arXiv:2502.14786) | B L | no class token |
| timm:NAME | its own | whatever timm's NAME has |
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Backbone(NamedTuple):
    """timm's model per encoder size, and the hub's (repository, file) where that is not timm's own.

    `revision` is the hub's branch, tag or commit, unless `encoder_revision` names another. No commit could be
    looked up where this was written, so it is a branch: the commit it stood for is in each run's
    `load_report.json`, to be typed as `encoder_revision` by whoever repeats that run.
    """

    models: dict[str, str]
    files: dict[str, tuple[str, str]] = {}  # noqa: RUF012
    revision: str = "main"


def _depth_anything(size: str) -> tuple[str, str]:
    name = {"S": "Small", "B": "Base", "L": "Large"}[size]
    return f"depth-anything/Depth-Anything-V2-{name}", f"depth_anything_v2_vit{size.lower()}.pth"


def _sizes(pattern: str, sizes: str) -> dict[str, str]:
    return {size: pattern.format({"S": "small", "B": "base", "L": "large"}[size]) for size in sizes}


BACKBONES: dict[str, Backbone] = {
    "mae": Backbone(_sizes("vit_{}_patch16_224.mae", "BL")),
    "clip": Backbone({"B": "vit_base_patch16_clip_224.dfn2b", "L": "vit_large_patch14_clip_224.dfn2b"}),
    "dino": Backbone(_sizes("vit_{}_patch16_224.dino", "SB")),
    "dinov2": Backbone(_sizes("vit_{}_patch14_dinov2.lvd142m", "SBL")),
    "depth_anything_v2": Backbone(
        _sizes("vit_{}_patch14_dinov2.lvd142m", "SBL"),  # the same network, trained on
        {size: _depth_anything(size) for size in "SBL"},
    ),
    "dinov2_reg": Backbone(_sizes("vit_{}_patch14_reg4_dinov2.lvd142m", "SBL")),
    "dinov3": Backbone(_sizes("vit_{}_patch16_dinov3.lvd1689m", "SBL")),
    "siglip2": Backbone(_sizes("vit_{}_patch16_siglip_256.v2_webli", "BL")),
}  # fmt: skip
TIMM = "timm:"


def known_init(name: str) -> str:
    """`name` if it is an initialization (`timm:NAME` is looked up once the network is built). Raises
    ValueError.
    """
    if name == "random" or name in BACKBONES or name.removeprefix(TIMM) not in ("", name):
        return name
    options = ["random", *BACKBONES]
    close = difflib.get_close_matches(name.lower().replace("-", ""), options, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"must be one of {', '.join(options)} or timm:NAME{meant}")


def known_like(name: str) -> str:
    """The same for `random_like`, where empty means a plain ViT."""
    return known_init(name) if name not in ("", "random") else ""


def timm_name(init: str, size: str) -> str:
    """timm's name of the network: of `size`, else of B, whose width, depth and heads are then replaced."""
    if init.startswith(TIMM):
        return init.removeprefix(TIMM)
    models = BACKBONES[init].models
    return models.get(size, models["B"])


class Quantization(NamedTuple):
    """A quantizer, as far as it can be told without its class in `tok1d.models.quantizers`."""

    tokens: str  # what a token becomes
    codes: str = "codebook_size"  # the parameter that says how many codes there are; empty: it has none
    dim: str = "codebook_dim"  # the parameter that says a code's dimensions; empty: the codes say it
    losses: tuple[str, ...] = ()  # in its own loss: codebook, commitment, entropy, kl
    continuous: bool = False  # its tokens are float32 numbers, not ids
    sphere: bool = False  # its codes have length 1
    power_of_two: bool = False  # is the number of its codes
    rotation_trick: bool = False  # it can rotate gradients past its codebook
    saturates: bool = False  # large inputs let no gradient through


QUANTIZERS = {
    "fsq": Quantization("a few rounded numbers", "fsq_levels", "", saturates=True),
    "vq": Quantization(
        "nearest code on the unit sphere", losses=("codebook", "commitment", "entropy"), sphere=True,
        rotation_trick=True,
    ),
    "vq_ema": Quantization(
        "the same, codes are running means", losses=("commitment",), sphere=True, rotation_trick=True,
    ),
    "lfq": Quantization(
        "signs, on the unit sphere", dim="", losses=("commitment", "entropy"), sphere=True, power_of_two=True,
    ),
    "simvq": Quantization(
        "nearest of fixed codes times a matrix", losses=("codebook", "commitment"), rotation_trick=True,
    ),
    "softvq": Quantization("a mix of codes", losses=("entropy",), continuous=True, sphere=True),
    "kl": Quantization("a draw from a Gaussian", codes="", losses=("kl",), continuous=True),
}  # fmt: skip


def quantizers_where(holds: Callable[[Quantization], Any], last: str = "and") -> str:
    """Those for which `holds`, as a phrase: vq, vq_ema and simvq."""
    return phrase((name for name, row in QUANTIZERS.items() if holds(row)), last)


def phrase(words: Iterable[str], last: str) -> str:
    """a, b and c."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end


def number_of_codes(quantizer: str, params: Mapping[str, Any]) -> int:
    """How many codes there are by these parameters: a codebook's size, or the product of levels; 0: none."""
    codes = QUANTIZERS[quantizer].codes
    if not codes:
        return 0
    return math.prod(params[codes]) if isinstance(params[codes], list | tuple) else params[codes]


class Number(NamedTuple):
    """One number of an evaluation: `scale` times it is shown, with `digits`."""

    label: str
    higher_is_better: bool = True
    digits: int = 3
    scale: float = 1.0
    published: bool = False  # a column of the README's table of results
    column: str = (
        ""  # of the per-image table, that tells good images from bad ones; empty: see `image_column`
    )


class Metric(NamedTuple):
    """What `metrics` takes, and the numbers that it gives. Its function is in `tok1d.evaluation`, by the same
    name: in `metrics.images`, or with a `network` in `metrics.sets`.
    """

    card: str  # what the card says that it is; empty: its weights say it
    numbers: dict[str, Number]
    network: str = ""  # a distance of sets, of this network's features: see `evaluation.metrics.features`
    halves: bool = False  # its intervals come from random halves of the images


WINDOW = "Gaussian window of 11 pixels, data range 1, as torchmetrics"
METRICS = {
    "psnr": Metric("PSNR, dB, mean over images, at most 100", {
        "psnr": Number("PSNR (dB)", digits=2, published=True),
    }),
    "ssim": Metric(f"SSIM, mean over images, {WINDOW}", {"ssim": Number("SSIM", published=True)}),
    "ms_ssim": Metric(f"MS-SSIM of 5 scales, mean over images, {WINDOW}", {
        "ms_ssim": Number("MS-SSIM", published=True),
    }),
    "sharpness": Metric("mean absolute gradient, as a share of the original's, mean over images", {
        "sharpness": Number("sharpness", digits=2),
    }),
    "seams": Metric("steps across borders of 8-pixel blocks over steps inside, mean over images; none: 1", {
        "seams": Number("seams", higher_is_better=False, digits=2),
    }),
    "lpips": Metric("", {
        "lpips": Number("LPIPS (VGG16)", higher_is_better=False, published=True),
        "vgg_distance": Number("VGG16 distance, not LPIPS", higher_is_better=False),
    }),
    "rfid": Metric("Fréchet distance of Inception's features (FID)", {
        "rfid": Number("rFID", higher_is_better=False, digits=2, published=True),
    }, network="inception"),
    "rfid_infinity": Metric("FID∞: a line through the FIDs of 15 subset sizes, followed to 1 / N = 0", {
        "rfid_infinity": Number("rFID∞", higher_is_better=False, digits=2),
    }, network="inception"),
    "kid": Metric("kernel distance of Inception's features (KID)", {
        "kid": Number("KID × 10³", higher_is_better=False, digits=2, scale=1e3, published=True),
    }, network="inception"),
    "prdc": Metric("precision, recall, density, coverage of Inception's features", {
        "precision": Number("precision"), "recall": Number("recall"), "density": Number("density"),
        "coverage": Number("coverage"),
    }, network="inception", halves=True),
    "frechet_dinov2": Metric("Fréchet distance of DINOv2's class tokens", {
        "frechet_dinov2": Number(
            "Fréchet distance, DINOv2", higher_is_better=False, digits=2, published=True
        ),
    }, network="dinov2"),
}  # fmt: skip
CODE_NUMBERS = {  # counted always, of tokenizers that have codes
    "code_usage": Number("codes used", column="different_codes"),
    "code_perplexity": Number("code perplexity", digits=0, column="different_codes", published=True),
}
NUMBERS = {name: row for metric in METRICS.values() for name, row in metric.numbers.items()} | CODE_NUMBERS
GENERATED = {"rfid": "gfid", "rfid_infinity": "gfid_infinity"}  # the same numbers of generated images
CHANGES_NO_NUMBER = ("eval_batch_size", "eval_devices", "show_images")  # parameters of an evaluation


def known_metric(name: str) -> str:
    """`name`, if `metrics` takes it. Raises `ValueError`."""
    if name not in METRICS:
        raise ValueError(f"must be of {', '.join(METRICS)}")
    return name


def known_number(name: str) -> str:
    """`name`, if it is a number of an evaluation. Raises `ValueError`."""
    if name not in NUMBERS:
        raise ValueError(f"must be one of {', '.join(NUMBERS)}")
    return name


def asked_as(number: str) -> str:
    """What to type for `metrics` to have a number: precision -> prdc; codes are counted always."""
    return next((name for name, metric in METRICS.items() if number in metric.numbers), "")


def image_column(number: str) -> tuple[str, bool]:
    """The column of the per-image table that leads to the images behind a number, and whether high values
    are good ones there: of distances of sets it is how far an image's features moved.
    """
    metric, row = METRICS.get(asked_as(number)), NUMBERS[number]
    if metric is not None and metric.network:
        return row.column or f"{metric.network}_shift", False
    return row.column or number, row.higher_is_better


DIAGNOSES = {
    "nan": "steps are skipped because the loss or a gradient is not finite",
    "diverging": "reconstructions are far worse than they were, or than plain gray",
    "exploding-gradient": "gradients are far larger than they were",
    "dead-parameters": "a part of the network gets no gradient",
    "collapse": "codebook (or posterior) collapse: tokens hardly differ from image to image",
    "mean-image": "stuck at the mean image: every image gets the same reconstruction",
    "discriminator-winning": "the discriminator is sure of everything and teaches nothing",
    "gan-onset": "reconstructions got far worse when the discriminator came in",
    "data-bound": "much of the time goes into waiting for images",
    "below-linear-code": "a linear code of equal bits, fitted in seconds, is better: it is under-trained",
}  # causes first: the order in which they are shown


@dataclass(frozen=True)
class Diagnosis:
    """One complaint: its name (of `DIAGNOSES`), the step since which it holds, the numbers that show it, and
    what to try, as parameters to type.
    """

    name: str
    since_step: int
    evidence: str
    advice: str

    def __str__(self) -> str:
        meaning = DIAGNOSES[self.name]
        return f"{self.name} since step {self.since_step}: {meaning} ({self.evidence}); {self.advice}"


def known_diagnosis(name: str) -> str:
    """`name` if it is a diagnosis. Raises ValueError, for pydantic, with the name that was probably meant."""
    if name in DIAGNOSES:
        return name
    close = difflib.get_close_matches(name.lower().replace("_", "-"), DIAGNOSES, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else ""
    raise ValueError(f"must be one of {', '.join(DIAGNOSES)}{f' ({hint})' if hint else ''}")
