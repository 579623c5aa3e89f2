"""Every parameter of the workbench: typed, frozen, validated, with one clear sentence for a bad value.

Parameters are flat names (`num_latent_tokens: 64`), as YAML files, papermill and notebooks hold them. Here
they are sorted into a few small classes, one per concern; `tok1d.params` is the only door in.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tok1d.backbones import known_init, known_like


class ConfigError(ValueError):
    """A parameter that cannot be used; the message is one sentence that says what to type instead."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence, without the stack of calls that led to it."""
        return [f"ConfigError: {self}"]


def to_number(value: Any) -> Any:
    """YAML reads `1e-4` as text and `true` as a bool: turn the first into a number, refuse the second."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _word(value: Any) -> Any:
    """YAML reads `run: 64` as a number, `run: 2025-01-31` as a date and a blank as null: all mean text."""
    if isinstance(value, int | datetime.date | Path) and not isinstance(value, bool):
        return str(value)
    return "" if value is None else value


def _tuple(value: Any) -> Any:
    """One value or a comma-separated text is a list too: `token_counts=8` and `-p token_counts=1,8,64`."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value if isinstance(value, list | tuple) else () if value is None else (value,)


Int = Annotated[int, BeforeValidator(to_number)]
Float = Annotated[float, BeforeValidator(to_number)]
Text = Annotated[str, BeforeValidator(_word)]
FolderName = Annotated[Text, Field(pattern=r"^\w[\w.+-]{0,99}$")]
Ints = Annotated[tuple[Int, ...], BeforeValidator(_tuple)]
Counts = Annotated[tuple[Annotated[Int, Field(ge=1)], ...], BeforeValidator(_tuple)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_tuple)]
YamlNo = BeforeValidator(lambda value: "no" if value is False else value)  # YAML reads a bare no as false
Precision = Annotated[Literal["auto", "no", "bf16"], YamlNo]

Size = Literal["nano", "T", "S", "B", "L"]
Init = Annotated[Text, AfterValidator(known_init)]
Like = Annotated[Text, AfterValidator(known_like)]


def _frozen_blocks(value: str) -> str:
    if value in ("none", "all") or (value.isdecimal() and int(value) >= 1):
        return value
    raise ValueError("must be none, all, or the number of first blocks to freeze")


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class RunConfig(Config):
    """Which run folder: `<outputs>/<sweep>/<run>/`."""

    outputs: Text = Field("outputs", min_length=1, description="folder that holds every result")
    sweep: FolderName = Field("runs", description="folder of runs that belong together")
    run: FolderName = Field("run", description="name of this run")

    @property
    def folder(self) -> Path:
        return Path(self.outputs) / self.sweep / self.run


class DataConfig(Config):
    """Where images come from; see `tok1d.data`."""

    data: Text = Field("toy-roads", min_length=1, description="toy-roads, an image folder, or a .txt list")
    val_data: Text = Field("", description="the same for validation; empty: the last 5 % of `data`")
    data_root: Text = Field("", description="folder a list's paths start from; empty: the list's own")
    bdd_labels: Text = Field("", description="BDD100K label file (.json), or folder of such files")
    weather: Names = Field((), description="BDD100K weathers to keep; empty: all")
    timeofday: Names = Field((), description="BDD100K times of day to keep; empty: all")
    scene: Names = Field((), description="BDD100K scenes to keep; empty: all")
    toy_images: Int = Field(2000, ge=1, le=10**6, description="number of toy-roads training images")
    toy_val_images: Int = Field(200, ge=1, description="number of toy-roads validation images")
    max_unreadable: Float = Field(0.01, ge=0, le=1, description="stop when a larger share cannot be read")


class TokenizerConfig(Config):
    """The network; see `tok1d.tokenizer`. Sizes are timm's ViTs; `nano` (width 128, 2 blocks) is for CPUs."""

    image_size: Int = Field(256, ge=8, le=2048, description="side of the square images, in pixels")
    patch_size: Int = Field(16, ge=2, le=64, description="side of a ViT patch, in pixels")
    encoder_size: Size = Field("S", description="ViT encoder: nano, T, S, B or L")
    decoder_size: Size = Field("S", description="ViT decoder: nano, T, S, B or L")
    encoder_init: Init = Field("random", description="random, mae, clip, dino, dinov2, … or timm:NAME")
    random_like: Like = Field("", description="build a random encoder with the modules of this encoder_init")
    num_latent_tokens: Int = Field(64, ge=1, le=4096, description="K, the tokens an image becomes")
    elastic: bool = Field(False, description="one model for every token count up to K (nested dropout)")
    token_mixing: bool = Field(
        True, description="start tokens from learned mixes of patches, and the way back"
    )
    quantizer: Literal["fsq", "vq"] = Field("fsq", description="fsq, or vq (L2-normalised codebook)")
    fsq_levels: Ints = Field((8, 8, 8, 5, 5, 5), description="FSQ levels; their product is the codebook")
    codebook_size: Int = Field(4096, ge=2, le=2**20, description="entries of the vq codebook")
    codebook_dim: Int = Field(16, ge=1, le=1024, description="dimensions of a vq code")
    commitment_weight: Float = Field(0.25, ge=0, description="weight of the vq commitment loss")

    @model_validator(mode="before")
    @classmethod
    def _base_unless_told(cls, values: Any) -> Any:
        """Pretrained encoders are Base unless a size is given: it is the one size that all of them have."""
        if isinstance(values, dict) and values.get("encoder_init", "random") != "random":
            return {"encoder_size": "B"} | values
        return values

    @model_validator(mode="after")
    def _fits(self) -> TokenizerConfig:
        if self.random_like and self.encoder_init != "random":
            raise ValueError(
                f"random_like={self.random_like} needs encoder_init=random, not {self.encoder_init}: "
                f"leave one out"
            )
        size, patch = self.image_size, self.patch_size
        if size % patch:
            near = max(-(-8 // patch), min(round(size / patch), 2048 // patch)) * patch
            raise ValueError(
                f"image_size={size} is no multiple of patch_size={patch}: type image_size={near}"
            )
        if not self.fsq_levels or min(self.fsq_levels) < 3 or math.prod(self.fsq_levels) > 2**20:
            got = ",".join(map(str, self.fsq_levels)) or ()
            need = f"must be 3 or more each, with a product of at most {2**20}, got {got}"
            raise ValueError(f"fsq_levels {need}: for example type fsq_levels=8,8,8,5,5,5")
        return self

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def bits_per_token(self) -> float:
        return math.log2(math.prod(self.fsq_levels) if self.quantizer == "fsq" else self.codebook_size)

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Counts worth showing: 1, 2, 4 … K for an elastic tokenizer, K alone for a fixed one."""
        if not self.elastic:
            return (self.num_latent_tokens,)
        powers = [2**i for i in range(self.num_latent_tokens.bit_length())]
        return tuple(sorted({*powers, self.num_latent_tokens}))


class StartConfig(Config):
    """Where the encoder's weights come from, and which of them may move; see `tok1d.load_report`."""

    encoder_weights: Text = Field("", description="local .safetensors or .pth; empty: from the hub")
    encoder_revision: Text = Field("", description="the hub's commit, tag or branch; empty: the registry's")
    encoder_freeze: Annotated[Text, AfterValidator(_frozen_blocks)] = Field(
        "none", description="none, all, or n: the embeddings and first n blocks of the encoder"
    )
    encoder_lr_decay: Float = Field(1.0, gt=0, le=1, description="learning-rate factor per block downwards")


class TrainConfig(StartConfig):
    """The training loop; see `tok1d.train`. Together with the seed it fixes every random choice."""

    steps: Int = Field(10_000, ge=1, description="optimizer steps")
    batch_size: Int = Field(64, ge=1, description="images a step, over all devices")
    lr: Float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    warmup_steps: Int = Field(100, ge=0, description="steps of linear warm-up, before the cosine to 0")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="adamw, or muon for the matrices")
    muon_lr: Float = Field(0.01, gt=0, le=1, description="peak learning rate of muon's matrices")
    weight_decay: Float = Field(0.01, ge=0, le=1, description="decoupled weight decay of matrices")
    beta1: Float = Field(0.9, ge=0, lt=1, description="first moment's decay")
    beta2: Float = Field(0.99, ge=0, lt=1, description="second moment's decay")
    grad_clip: Float = Field(1.0, gt=0, description="largest gradient norm")
    ema_decay: Float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, which are saved")
    l1_weight: Float = Field(0.0, ge=0, description="weight of the mean absolute error")
    l2_weight: Float = Field(1.0, ge=0, description="weight of the mean squared error")
    quantizer_weight: Float = Field(1.0, ge=0, description="weight of the quantizer's own loss")
    entropy_weight: Float = Field(0.1, ge=0, description="vq entropy loss weight at the start")
    entropy_weight_end: Float = Field(0.001, ge=0, description="the same at the end of its decay")
    entropy_decay_steps: Int = Field(10_000, ge=1, description="steps of that decay")
    elastic_full_share: Float = Field(0.2, ge=0, le=1, description="share of steps before random prefixes")
    mixed_precision: Precision = Field("auto", description="auto: bf16 on a GPU that has it, else no")
    seed: Int = Field(0, ge=0, lt=2**31, description="the one seed")
    log_every: Int = Field(20, ge=1, description="steps between records in metrics.jsonl")
    checkpoint_every: Int = Field(500, ge=1, description="steps between checkpoints")


class EvalConfig(Config):
    """What to measure, and what to show; see `tok1d.evaluate`."""

    token_counts: Counts = Field((), description="counts to evaluate; empty: 1, 2, 4 … K, or K alone")
    eval_batch_size: Int = Field(50, ge=1, description="images at once")
    eval_images: Int = Field(0, ge=0, description="validation images to measure; 0: all")
    show_images: Int = Field(6, ge=1, le=64, description="validation images to show")


class CompareConfig(Config):
    """Which runs a notebook that compares runs reads."""

    runs: Names = Field((), description="run folders; empty: every finished run of the sweep")
    metric: Literal["psnr", "ssim"] = Field("psnr", description="quality measure to plot")


NOTEBOOKS: dict[str, tuple[type[Config], ...]] = {
    "train": (RunConfig, DataConfig, TokenizerConfig, TrainConfig, EvalConfig),
    "reconstruct": (RunConfig, EvalConfig),
    "ablation": (RunConfig, CompareConfig),
    "figures": (RunConfig, CompareConfig),
}


def fields(*classes: type[Config]) -> dict[str, Any]:
    """Every parameter of these classes by name, with its pydantic field (default, description)."""
    return {name: field for cls in classes for name, field in cls.model_fields.items()}
