"""Every name that a parameter may take: encoder initializations, numbers of an evaluation, diagnoses.

Only names, so that a parameter file is checked at once. What stands behind them is elsewhere: the networks in
`tok1d.models`, the numbers in `tok1d.evaluation`, the diagnoses in `tok1d.training.symptoms`.

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
from dataclasses import dataclass
from typing import NamedTuple


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


class Metric(NamedTuple):
    label: str
    case: str = ""  # the column of the per-image table that tells good images from bad ones
    bad: str = "low"  # which end of that column is the bad one
    digits: int = 3
    scale: float = 1.0  # it is shown times this


NUMBERS = {
    "psnr": Metric("PSNR (dB)", "psnr", digits=2),
    "ssim": Metric("SSIM", "ssim"),
    "ms_ssim": Metric("MS-SSIM", "ms_ssim"),
    "lpips": Metric("LPIPS (VGG16)", "lpips", "high"),
    "vgg_distance": Metric("VGG16 distance, not LPIPS", "vgg_distance", "high"),
    "rfid": Metric("rFID", "inception_shift", "high", 2),
    "rfid_infinity": Metric("rFID∞", "inception_shift", "high", 2),
    "kid": Metric("KID × 10³", "inception_shift", "high", 2, 1e3),
    "precision": Metric("precision", "inception_shift", "high"),
    "recall": Metric("recall", "inception_shift", "high"),
    "density": Metric("density", "inception_shift", "high"),
    "coverage": Metric("coverage", "inception_shift", "high"),
    "frechet_dinov2": Metric("Fréchet distance, DINOv2", "dinov2_shift", "high", 2),
    "code_usage": Metric("codes used", "different_codes"),
    "code_perplexity": Metric("code perplexity", "different_codes", digits=0),
}

# What `metrics` takes, and which numbers each gives
MEASURABLE = {
    "psnr": ("psnr",),
    "ssim": ("ssim",),
    "ms_ssim": ("ms_ssim",),
    "lpips": ("lpips", "vgg_distance"),
    "rfid": ("rfid",),
    "rfid_infinity": ("rfid_infinity",),
    "kid": ("kid",),
    "prdc": ("precision", "recall", "density", "coverage"),
    "frechet_dinov2": ("frechet_dinov2",),
}
CHANGES_NO_NUMBER = ("eval_batch_size", "eval_devices", "show_images")  # parameters of an evaluation
NEEDS = {  # whose features
    "rfid": "inception", "rfid_infinity": "inception", "kid": "inception", "prdc": "inception",
    "frechet_dinov2": "dinov2",
}  # fmt: skip


def known_metric(name: str) -> str:
    """`name`, if `metrics` takes it. Raises `ValueError`."""
    if name not in MEASURABLE:
        raise ValueError(f"must be of {', '.join(MEASURABLE)}")
    return name


def known_number(name: str) -> str:
    """`name`, if it is a number of an evaluation. Raises `ValueError`."""
    if name not in NUMBERS:
        raise ValueError(f"must be one of {', '.join(NUMBERS)}")
    return name


def asked_as(number: str) -> str:
    """What to type for `metrics` to have a number: precision -> prdc; codes are counted always."""
    return next((metric for metric, numbers in MEASURABLE.items() if number in numbers), "")


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
