"""Every parameter of the workbench: typed, frozen, validated, with one clear sentence for a bad value.

Parameters are flat names (`num_latent_tokens: 64`), as YAML files, papermill and notebooks hold them. Here
they are sorted into a few small classes, one per concern; `tok1d.config.parse` is the only door in.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tok1d.config.fields import (
    Config,
    ConfigError,
    Counts,
    Diagnoses,
    Float,
    FolderName,
    Init,
    Int,
    Ints,
    Like,
    MetricNames,
    Names,
    Precision,
    QuantizerName,
    RunName,
    Size,
    Text,
)
from tok1d.config.registry import METRICS, QUANTIZERS, number_of_codes, quantizers_where

# Which quantizers have what some parameters are about
SIZED = quantizers_where(lambda q: q.codes == "codebook_size")
DIMENSIONED = quantizers_where(lambda q: q.dim == "codebook_dim")
COMMITTED = quantizers_where(lambda q: "commitment" in q.losses)
ROTATED = quantizers_where(lambda q: q.rotation_trick)
ENTROPIC = quantizers_where(lambda q: "entropy" in q.losses)


# What a tokenizer with a linear encoder can be told too; anything else asks for a ViT
OF_LINEAR_TOO = {"image_size", "encoder", "num_latent_tokens", "elastic", "decoder_refine", "fsq_levels"}


class TokenizerConfig(Config):
    """The network. Sizes are timm's ViTs; `nano` (width 128, 2 blocks) is for CPUs.

    Unless `encoder` is told, it is `vit` once anything is asked that only a ViT tokenizer has, such as
    `encoder_init` or `patch_size`. Unless `decoder_refine` is told, a ViT tokenizer has none.
    """

    image_size: Int = Field(64, ge=8, le=2048, description="side of the square images, in pixels")
    encoder: Literal["vit", "linear"] = Field(
        "linear", description="linear: ids of a linear code that is fitted to the training images, or vit"
    )
    patch_size: Int = Field(16, ge=2, le=64, description="side of a ViT patch, in pixels")
    encoder_size: Size = Field("nano", description="ViT encoder: nano, T, S, B or L")
    decoder_size: Size = Field("nano", description="ViT decoder: nano, T, S, B or L")
    encoder_init: Init = Field("random", description="random, mae, clip, dino, dinov2, … or timm:NAME")
    random_like: Like = Field("", description="build a random encoder with the modules of this encoder_init")
    num_latent_tokens: Int = Field(64, ge=1, le=4096, description="K, the tokens an image becomes")
    elastic: bool = Field(True, description="one model for every token count up to K (nested dropout)")
    token_mixing: bool = Field(
        True, description="start tokens from learned mixes of patches, and the way back"
    )
    decoder_head: Literal["patch", "cnn", "titok"] = Field(
        "patch",
        description="patch: one linear map a patch; cnn: VQGAN's convolutional decoder; titok: as patch, "
        "with TiTok's class token and norm before the blocks, to start from a peer",
    )
    decoder_refine: Literal["none", "nano", "small", "base"] = Field(
        "small", description="size of the convolutional network that refines decoded pixels, or none"
    )
    cnn_channels: Int = Field(128, ge=32, le=1024, multiple_of=32, description="channels at full resolution")
    cnn_multipliers: Counts = Field((1, 1, 2, 2, 4), description="times as many, from full resolution down")
    cnn_blocks: Int = Field(
        2, ge=1, le=8, description="its residual blocks a level, less one, as VQGAN counts"
    )
    cnn_attention: Counts = Field((16,), description="sides at which its levels have attention")
    quantizer: QuantizerName = Field(
        "fsq", description="; ".join(f"{name}: {row.tokens}" for name, row in QUANTIZERS.items())
    )
    fsq_levels: Ints = Field((8, 8, 8, 5, 5, 5), description="FSQ levels; their product is the codebook")
    codebook_size: Int = Field(4096, ge=2, le=2**20, description=f"codes of {SIZED}")
    codebook_dim: Int = Field(16, ge=1, le=1024, description=f"dimensions of a code of {DIMENSIONED}")
    commitment_weight: Float = Field(0.25, ge=0, description=f"weight of the commitment loss of {COMMITTED}")
    codebook_decay: Float = Field(0.99, ge=0, lt=1, description="decay of vq_ema's running means, per step")
    rotation_trick: bool = Field(
        False, description=f"{ROTATED}: rotate gradients past the codebook, not copy them"
    )
    entropy_temperature: Float = Field(
        0.01, gt=0, description="temperature of the softmax whose entropies are vq's entropy loss"
    )
    softvq_temperature: Float = Field(0.07, gt=0, description="temperature of softvq's mix of codes")
    kl_weight: Float = Field(1e-4, ge=0, description="weight of kl's divergence from a unit Gaussian")

    @model_validator(mode="before")
    @classmethod
    def _unless_told(cls, values: Any) -> Any:
        """Defaults that depend on others. Pretrained encoders are Base: all of them have that size."""
        if not isinstance(values, dict):
            return values
        fields, untold = cls.model_fields, {}
        asked = {name for name, value in values.items() if name in fields and value != fields[name].default}
        if asked - OF_LINEAR_TOO:
            untold["encoder"] = "vit"
        if (untold | values).get("encoder") == "vit":
            untold["decoder_refine"] = "none"
        if values.get("encoder_init", "random") != "random":
            untold["encoder_size"] = "B"
        return untold | values

    @model_validator(mode="after")
    def _fits(self) -> TokenizerConfig:
        if self.random_like and self.encoder_init != "random":
            raise ValueError(
                f"random_like={self.random_like} needs encoder_init=random, not {self.encoder_init}: "
                f"leave one out"
            )
        size, patch = self.image_size, self.patch_size
        if self.encoder == "vit" and size % patch:
            near = max(-(-8 // patch), min(round(size / patch), 2048 // patch)) * patch
            raise ValueError(
                f"image_size={size} is no multiple of patch_size={patch}: type image_size={near}"
            )
        if self.encoder == "linear" and (self.quantizer != "fsq" or self.encoder_init != "random"):
            raise ValueError(
                "encoder=linear has ids of FSQ's levels and no network: "
                "type quantizer=fsq encoder_init=random, or encoder=vit"
            )
        doublings = len(self.cnn_multipliers) - 1
        if self.decoder_head == "cnn" and 2**doublings != patch:
            wanted = round(math.log2(patch))
            fits = ",".join(map(str, (1,) * (wanted - 4) + (1, 1, 2, 2, 4)[-wanted - 1 :]))
            hint = f"cnn_multipliers={fits}" if 2**wanted == patch else f"patch_size={2**wanted}"
            raise ValueError(
                f"decoder_head=cnn with {doublings + 1} cnn_multipliers enlarges {2**doublings} times, not "
                f"patch_size={patch}: type {hint}"
            )
        if not self.fsq_levels or min(self.fsq_levels) < 3 or math.prod(self.fsq_levels) > 2**20:
            got = ",".join(map(str, self.fsq_levels)) or ()
            need = f"must be 3 or more each, with a product of at most {2**20}, got {got}"
            raise ValueError(f"fsq_levels {need}: for example type fsq_levels=8,8,8,5,5,5")
        return self

    @model_validator(mode="after")
    def _fits_the_quantizer(self) -> TokenizerConfig:
        row, size = QUANTIZERS[self.quantizer], self.codebook_size
        if row.power_of_two and (size.bit_count() != 1 or size < 4):
            near = 2 ** min(20, max(2, round(math.log2(size))))
            raise ValueError(
                f"codebook_size={size} is no power of two from 4 on, as quantizer={self.quantizer} needs: "
                f"type codebook_size={near}"
            )
        if self.codebook_dim < 2 and row.sphere and row.dim:
            raise ValueError(
                f"codebook_dim={self.codebook_dim} is too few for quantizer={self.quantizer}, whose codes "
                f"are on a sphere: type codebook_dim=2 or more"
            )
        if self.rotation_trick and not row.rotation_trick:
            able = quantizers_where(lambda q: q.rotation_trick, "or")
            raise ValueError(
                f"rotation_trick=true is for quantizer={able}, not {self.quantizer}: "
                f"type rotation_trick=false"
            )
        return self

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def bits_per_token(self) -> float:
        """What storing a token takes: its id, or if it is continuous its `codebook_dim` float32 numbers."""
        if QUANTIZERS[self.quantizer].continuous:
            return 32.0 * self.codebook_dim
        return math.log2(number_of_codes(self.quantizer, dict(self)))

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Counts worth showing: 1, 2, 4 … K for an elastic tokenizer, K alone for a fixed one."""
        if not self.elastic:
            return (self.num_latent_tokens,)
        powers = [2**i for i in range(self.num_latent_tokens.bit_length())]
        return tuple(sorted({*powers, self.num_latent_tokens}))


def _frozen_blocks(value: str) -> str:
    if value in ("none", "all") or (value.isdecimal() and int(value) >= 1):
        return value
    raise ValueError("must be none, all, or the number of first blocks to freeze")


class StartConfig(Config):
    """Where the weights come from, and which of them may move; see `tok1d.training.initialize`."""

    encoder_checkpoint: Text = Field("", description="local .safetensors or .pth; empty: from the hub")
    encoder_revision: Text = Field("", description="the hub's commit, tag or branch; empty: the registry's")
    encoder_freeze: Annotated[Text, AfterValidator(_frozen_blocks)] = Field(
        "none", description="none, all, or n: the embeddings and first n blocks of the encoder"
    )
    encoder_lr_decay: Float = Field(1.0, gt=0, le=1, description="learning-rate factor per block downwards")
    init_from: Text = Field("", description="run folder, model folder, hub id or peer:NAME to fine-tune")
    trainable: Literal["all", "decoder", "refine"] = Field(
        "all", description="all, or only the decoder, or what refines it: ids then stay as they are"
    )


def _perceptual(value: str) -> str:
    if value in ("lpips", "vgg", "vgg_early", "texture") or (value.startswith("timm:") and len(value) > 5):
        return value
    raise ValueError(
        "must be lpips, vgg, vgg_early, texture, or timm:NAME of a convolutional network such as "
        "timm:convnext_small"
    )


def _pretrained(value: str) -> str:
    if value == "random":
        raise ValueError("must be a pretrained backbone")
    return value


class LossConfig(Config):
    """What training minimizes; a weight of 0 switches its term off. See `tok1d.losses.objective`."""

    l1_weight: Float = Field(0.0, ge=0, description="weight of the mean absolute error")
    l2_weight: Float = Field(1.0, ge=0, description="weight of the mean squared error")
    charbonnier_weight: Float = Field(0.0, ge=0, description="weight of the Charbonnier error (smooth L1)")
    perceptual: Annotated[Text, AfterValidator(_perceptual)] = Field(
        "lpips",
        description="lpips, vgg, vgg_early (its first three maps), timm:NAME of a convolutional network, or "
        "texture: energies of fixed filters, which need no file",
    )
    perceptual_weight: Float = Field(0.0, ge=0, description="weight of the perceptual loss")
    perceptual_from_tokens: Int = Field(
        1, ge=1, description="token count from which it has its whole weight; fewer have it in proportion"
    )
    perceptual_checkpoint: Text = Field("", description="local file of its network; empty: from the hub")
    quantizer_weight: Float = Field(1.0, ge=0, description="weight of the quantizer's own loss")
    entropy_weight: Float = Field(0.1, ge=0, description=f"entropy weight of {ENTROPIC}, at the start")
    entropy_weight_end: Float = Field(0.001, ge=0, description="the same at the end of its decay")
    entropy_decay_steps: Int = Field(10_000, ge=1, description="steps of that decay")
    adversarial_weight: Float = Field(0.0, ge=0, description="weight of the adversarial (hinge) loss")
    adaptive_weight: bool = Field(True, description="scale it by the ratio of gradients at the last layer")
    discriminator: Literal["patchgan", "features"] = Field(
        "patchgan", description="patchgan, or heads on the features of a frozen DINO"
    )
    discriminator_checkpoint: Text = Field("", description="local file of that DINO; empty: from the hub")
    discriminator_lr: Float = Field(0.0, ge=0, le=1, description="its peak learning rate; 0: the same as lr")
    discriminator_start: Int = Field(0, ge=0, description="step from which there is a discriminator")
    discriminator_ramp: Int = Field(0, ge=0, description="steps over which its weight then grows from 0")
    lecam_weight: Float = Field(0.0, ge=0, description="weight of the discriminator's LeCam regularization")
    align_weight: Float = Field(0.0, ge=0, description="weight of alignment to a frozen backbone's features")
    align_features: Literal["decoder", "tokens"] = Field(
        "decoder", description="what is aligned: the decoder's middle features, or the tokens' codes"
    )
    align_to: Annotated[Init, AfterValidator(_pretrained)] = Field(
        "dinov2", description="the backbone: a name as for encoder_init"
    )
    align_size: Size = Field("B", description="its size")
    align_checkpoint: Text = Field("", description="local file of that backbone; empty: from the hub")


class LoopConfig(Config):
    """The training loop, of whatever task; see `tok1d.training.train`. Its seed fixes every random choice."""

    steps: Int = Field(1200, ge=1, description="optimizer steps")
    batch_size: Int = Field(16, ge=1, description="images a step, over all processes and accumulated parts")
    grad_accum_steps: Int = Field(1, ge=1, description="parts that a batch is computed in, to save memory")
    lr: Float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    warmup_steps: Int = Field(100, ge=0, description="steps of linear warm-up, before the cosine to 0")
    optimizer: Literal["adamw", "muon"] = Field("muon", description="adamw, or muon for the matrices")
    muon_lr: Float = Field(0.01, gt=0, le=1, description="peak learning rate of muon's matrices")
    weight_decay: Float = Field(0.01, ge=0, le=1, description="decoupled weight decay of matrices")
    beta1: Float = Field(0.9, ge=0, lt=1, description="first moment's decay")
    beta2: Float = Field(0.99, ge=0, lt=1, description="second moment's decay")
    grad_clip: Float = Field(1.0, gt=0, description="largest gradient norm")
    ema_decay: Float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, which are saved")
    mixed_precision: Precision = Field("auto", description="auto: bf16 on a GPU that has it, else no")
    compile: bool = Field(False, description="torch.compile the transformer blocks")
    activation_checkpointing: bool = Field(False, description="recompute blocks backwards, to save memory")
    num_processes: Int = Field(1, ge=1, description="GPUs (or CPU processes) that a notebook starts")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="ddp: a copy on each GPU; fsdp: the blocks in pieces, to save memory"
    )
    nan_patience: Int = Field(
        5, ge=1, description="steps in a row without a finite gradient before going back"
    )
    stop_on: Diagnoses = Field((), description="diagnoses of the doctor that stop a run: nan,collapse …")
    seed: Int = Field(0, ge=0, lt=2**31, description="the one seed")
    log_every: Int = Field(20, ge=1, description="steps between records in metrics.jsonl")
    checkpoint_every: Int = Field(500, ge=1, description="steps between checkpoints")

    @model_validator(mode="after")
    def _can_be_cut(self) -> LoopConfig:
        if self.parallel == "fsdp" and self.optimizer == "muon":
            raise ValueError(
                "parallel=fsdp cuts matrices into pieces, which optimizer=muon needs whole: "
                "type optimizer=adamw, or parallel=ddp"
            )
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(self._uneven(self.grad_accum_steps))
        return self

    def check_batch(self, processes: int) -> None:
        """Raises `ConfigError` if a batch cannot be cut into equal parts for each process."""
        if self.batch_size % (parts := self.grad_accum_steps * processes):
            raise ConfigError(self._uneven(parts, f" × {processes} processes"))

    def _uneven(self, parts: int, more: str = "") -> str:
        said = (
            f"batch_size={self.batch_size} is no multiple of grad_accum_steps={self.grad_accum_steps}{more}"
        )
        return f"{said}: type batch_size={-(-self.batch_size // parts) * parts}"


class TrainConfig(LoopConfig, StartConfig, LossConfig):
    """The training of a tokenizer; see `tok1d.training.task`."""

    elastic_warmup_fraction: Float = Field(
        0.4, ge=0, le=1, description="share of steps before random prefixes; a linear encoder needs none"
    )
    model_dtype: Literal["float32", "float16"] = Field(
        "float32", description="numbers of the finished model's file; float16 halves it"
    )


class RunConfig(Config):
    """Which run folder: `<outputs>/<sweep>/<run>/`."""

    outputs: Text = Field("outputs", min_length=1, description="folder that holds every result")
    sweep: FolderName = Field("runs", description="folder of runs that belong together")
    run: RunName = Field("quickstart", description="name of this run")

    @property
    def folder(self) -> Path:
        return Path(self.outputs) / self.sweep / self.run


class DataConfig(Config):
    """Where images come from; see `tok1d.data.dataset`."""

    data: Text = Field(
        "toy-roads", min_length=1, description="toy-roads, an image folder, a .txt list, .tar shards, hf:NAME"
    )
    val_data: Text = Field("", description="the same for validation; empty: 5 % of `data`, by `hold_out`")
    hold_out: Literal["tail", "every", "block"] = Field(
        "tail",
        description="which 5 %: tail: the last of each folder by name; every: every 20th, for pictures in no "
        "order (frames of a video would be measured beside their neighbors); block: five stretches of a "
        "video, and as many frames around each in neither part",
    )
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


MEASURED = ("psnr", "ssim", "ms_ssim")  # unless `metrics` says more


class EvalConfig(Config):
    """What to measure, and what to show; see `tok1d.evaluation.evaluate`."""

    token_counts: Counts = Field((), description="counts to evaluate; empty: 1, 2, 4 … K, or K alone")
    metrics: MetricNames = Field(
        MEASURED,
        description=f"what to measure; also {', '.join(name for name in METRICS if name not in MEASURED)}",
    )
    linear_code: bool = Field(
        True, description="measure a linear code of equal bits too, the line to beat (fitted to `data`)"
    )
    eval_batch_size: Int = Field(50, ge=1, description="images at once")
    eval_devices: Int = Field(0, ge=0, description="GPUs to evaluate on at most; 0: all")
    eval_images: Int = Field(0, ge=0, description="validation images to measure; 0: all")
    eval_dtype: Literal["float32", "bf16"] = Field("float32", description="arithmetic of the tokenizer")
    feature_dtype: Literal["float32", "float16"] = Field(
        "float32", description="arithmetic of the networks behind distances of sets (rfid …)"
    )
    reference_data: Text = Field(
        "", description="images that distances of sets are to, as `data`; empty: the evaluated ones"
    )
    resamples: Int = Field(1000, ge=0, description="bootstrap resamples behind each interval; 0: none")
    inception_checkpoint: Text = Field("", description="local file of FID's Inception; empty: fetched")
    dino_checkpoint: Text = Field("", description="local file of DINOv2; empty: fetched")
    dino_size: Literal["S", "B", "L"] = Field("B", description="DINOv2's size")
    lpips_checkpoint: Text = Field("", description="local VGG16 file of LPIPS; empty: fetched")
    show_images: Int = Field(6, ge=1, le=64, description="validation images to show")


def fields(*classes: type[Config]) -> dict[str, Any]:
    """Every parameter of these classes by name, with its pydantic field (default, description)."""
    return {name: field for cls in classes for name, field in cls.model_fields.items()}
