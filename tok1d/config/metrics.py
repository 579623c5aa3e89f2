"""The numbers of an evaluation by name: what each is called, which way is better, what stands behind it."""

from __future__ import annotations

from typing import NamedTuple


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
