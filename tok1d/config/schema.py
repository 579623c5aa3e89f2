"""Every parameter of the workbench: typed, frozen, validated, with one clear sentence for a bad value.

Parameters are flat names (`num_latent_tokens: 64`), as YAML files, papermill and notebooks hold them. Here
they are sorted into a few small classes, one per concern; `tok1d.config.parse` is the only door in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tok1d.config.fields import (
    Config,
    ConfigError,
    Counts,
    Float,
    FolderName,
    Int,
    MetricNames,
    Names,
    NumberName,
    Text,
    to_number,
)
from tok1d.config.tokenizer_config import TokenizerConfig
from tok1d.config.train_config import LossConfig, StartConfig, TrainConfig

__all__ = [
    "NOTEBOOKS", "CompareConfig", "Config", "ConfigError", "DataConfig", "EvalConfig", "LossConfig",
    "RunConfig", "StartConfig", "TokenizerConfig", "TrainConfig", "fields", "to_number",
]  # fmt: skip


class RunConfig(Config):
    """Which run folder: `<outputs>/<sweep>/<run>/`."""

    outputs: Text = Field("outputs", min_length=1, description="folder that holds every result")
    sweep: FolderName = Field("runs", description="folder of runs that belong together")
    run: FolderName = Field("run", description="name of this run")

    @property
    def folder(self) -> Path:
        return Path(self.outputs) / self.sweep / self.run


class DataConfig(Config):
    """Where images come from; see `tok1d.data.dataset`."""

    data: Text = Field(
        "toy-roads", min_length=1, description="toy-roads, an image folder, a .txt list, .tar shards, hf:NAME"
    )
    val_data: Text = Field("", description="the same for validation; empty: the last 5 % of `data`")
    data_root: Text = Field("", description="folder a list's paths start from; empty: the list's own")
    bdd_labels: Text = Field("", description="BDD100K label file (.json), or folder of such files")
    weather: Names = Field((), description="BDD100K weathers to keep; empty: all")
    timeofday: Names = Field((), description="BDD100K times of day to keep; empty: all")
    scene: Names = Field((), description="BDD100K scenes to keep; empty: all")
    toy_images: Int = Field(2000, ge=1, le=10**6, description="number of toy-roads training images")
    toy_val_images: Int = Field(200, ge=1, description="number of toy-roads validation images")
    max_images: Int = Field(0, ge=0, description="images of `data` and of `val_data` to use; 0: all")
    max_unreadable: Float = Field(0.01, ge=0, le=1, description="stop when a larger share cannot be read")
    decode: Literal["cache", "stream"] = Field(
        "cache", description="decode once into a cache, or training images anew each time (for huge sets)"
    )


class EvalConfig(Config):
    """What to measure, and what to show; see `tok1d.evaluation.evaluate`."""

    token_counts: Counts = Field((), description="counts to evaluate; empty: 1, 2, 4 … K, or K alone")
    metrics: MetricNames = Field(
        ("psnr", "ssim", "ms_ssim"),
        description="what to measure; also lpips, rfid, rfid_infinity, kid, prdc, frechet_dinov2",
    )
    eval_batch_size: Int = Field(50, ge=1, description="images at once")
    eval_devices: Int = Field(0, ge=0, description="GPUs to evaluate on at most; 0: all")
    eval_images: Int = Field(0, ge=0, description="validation images to measure; 0: all")
    eval_dtype: Literal["float32", "bf16"] = Field("float32", description="arithmetic of the tokenizer")
    feature_dtype: Literal["float32", "float16"] = Field(
        "float32", description="arithmetic of the networks behind rfid, kid, prdc and frechet_dinov2"
    )
    reference_data: Text = Field(
        "", description="images that distances of sets are to, as `data`; empty: the evaluated ones"
    )
    resamples: Int = Field(1000, ge=0, description="bootstrap resamples behind each interval; 0: none")
    inception_weights: Text = Field("", description="local file of FID's Inception; empty: fetched")
    dino_weights: Text = Field("", description="local file of DINOv2; empty: fetched")
    dino_size: Literal["S", "B", "L"] = Field("B", description="DINOv2's size")
    lpips_weights: Text = Field("", description="local VGG16 file of LPIPS; empty: fetched")
    show_images: Int = Field(6, ge=1, le=64, description="validation images to show")


class CompareConfig(Config):
    """Which runs a notebook that compares runs reads."""

    runs: Names = Field((), description="run folders; empty: every finished run of the sweep")
    metric: NumberName = Field(
        "psnr", description="number of the evaluation to plot: psnr, ssim, rfid, kid …"
    )


class FiguresConfig(CompareConfig):
    """What the figures notebook draws."""

    num_tokens: Int = Field(
        0, ge=0, description="token count at which kinds of runs are compared; 0: 64, or what most have"
    )


NOTEBOOKS: dict[str, tuple[type[Config], ...]] = {
    "train": (RunConfig, DataConfig, TokenizerConfig, TrainConfig, EvalConfig),
    "reconstruct": (RunConfig, EvalConfig),
    "ablation": (RunConfig, CompareConfig),
    "figures": (RunConfig, FiguresConfig),
}


def fields(*classes: type[Config]) -> dict[str, Any]:
    """Every parameter of these classes by name, with its pydantic field (default, description)."""
    return {name: field for cls in classes for name, field in cls.model_fields.items()}
