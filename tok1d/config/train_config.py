"""The parameters of training: where it starts, what it minimises, how it goes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tok1d.config.fields import Config, Diagnoses, Float, Init, Int, Precision, Size, Text


def _frozen_blocks(value: str) -> str:
    if value in ("none", "all") or (value.isdecimal() and int(value) >= 1):
        return value
    raise ValueError("must be none, all, or the number of first blocks to freeze")


class StartConfig(Config):
    """Where the weights come from, and which of them may move; see `tok1d.training.initialize`."""

    encoder_weights: Text = Field("", description="local .safetensors or .pth; empty: from the hub")
    encoder_revision: Text = Field("", description="the hub's commit, tag or branch; empty: the registry's")
    encoder_freeze: Annotated[Text, AfterValidator(_frozen_blocks)] = Field(
        "none", description="none, all, or n: the embeddings and first n blocks of the encoder"
    )
    encoder_lr_decay: Float = Field(1.0, gt=0, le=1, description="learning-rate factor per block downwards")
    init_from: Text = Field("", description="run folder, model folder or hub id of a tokenizer to fine-tune")


def _perceptual(value: str) -> str:
    if value in ("lpips", "vgg") or (value.startswith("timm:") and len(value) > 5):
        return value
    raise ValueError(
        "must be lpips, vgg, or timm:NAME of a convolutional network such as timm:convnext_small"
    )


def _pretrained(value: str) -> str:
    if value == "random":
        raise ValueError("must be a pretrained backbone")
    return value


class LossConfig(Config):
    """What training minimises; a weight of 0 switches its term off. See `tok1d.losses.objective`."""

    l1_weight: Float = Field(0.0, ge=0, description="weight of the mean absolute error")
    l2_weight: Float = Field(1.0, ge=0, description="weight of the mean squared error")
    charbonnier_weight: Float = Field(0.0, ge=0, description="weight of the Charbonnier error (smooth L1)")
    perceptual: Annotated[Text, AfterValidator(_perceptual)] = Field(
        "lpips", description="lpips, vgg, or timm:NAME of a convolutional network"
    )
    perceptual_weight: Float = Field(0.0, ge=0, description="weight of the perceptual loss")
    perceptual_weights: Text = Field("", description="local file of its network; empty: from the hub")
    quantizer_weight: Float = Field(1.0, ge=0, description="weight of the quantizer's own loss")
    entropy_weight: Float = Field(0.1, ge=0, description="vq, lfq and softvq entropy weight at the start")
    entropy_weight_end: Float = Field(0.001, ge=0, description="the same at the end of its decay")
    entropy_decay_steps: Int = Field(10_000, ge=1, description="steps of that decay")
    adversarial_weight: Float = Field(0.0, ge=0, description="weight of the adversarial (hinge) loss")
    adaptive_weight: bool = Field(True, description="scale it by the ratio of gradients at the last layer")
    discriminator: Literal["patchgan", "features"] = Field(
        "patchgan", description="patchgan, or heads on the features of a frozen DINO"
    )
    discriminator_weights: Text = Field("", description="local file of that DINO; empty: from the hub")
    discriminator_lr: Float = Field(0.0, ge=0, le=1, description="its peak learning rate; 0: the same as lr")
    discriminator_start: Int = Field(0, ge=0, description="step from which there is a discriminator")
    discriminator_ramp: Int = Field(0, ge=0, description="steps over which its weight then grows from 0")
    lecam_weight: Float = Field(0.0, ge=0, description="weight of the discriminator's LeCam regularisation")
    align_weight: Float = Field(0.0, ge=0, description="weight of alignment to a frozen backbone's features")
    align: Literal["decoder", "tokens"] = Field(
        "decoder", description="what is aligned: the decoder's middle features, or the tokens' codes"
    )
    align_to: Annotated[Init, AfterValidator(_pretrained)] = Field(
        "dinov2", description="the backbone: a name as for encoder_init"
    )
    align_size: Size = Field("B", description="its size")
    align_weights: Text = Field("", description="local file of that backbone; empty: from the hub")


class TrainConfig(StartConfig, LossConfig):
    """The training loop; see `tok1d.training.train`. Together with the seed it fixes every random choice."""

    steps: Int = Field(10_000, ge=1, description="optimizer steps")
    batch_size: Int = Field(64, ge=1, description="images a step, over all processes and accumulated parts")
    accumulate: Int = Field(1, ge=1, description="parts that a batch is computed in, to save memory")
    lr: Float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    warmup_steps: Int = Field(100, ge=0, description="steps of linear warm-up, before the cosine to 0")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="adamw, or muon for the matrices")
    muon_lr: Float = Field(0.01, gt=0, le=1, description="peak learning rate of muon's matrices")
    weight_decay: Float = Field(0.01, ge=0, le=1, description="decoupled weight decay of matrices")
    beta1: Float = Field(0.9, ge=0, lt=1, description="first moment's decay")
    beta2: Float = Field(0.99, ge=0, lt=1, description="second moment's decay")
    grad_clip: Float = Field(1.0, gt=0, description="largest gradient norm")
    ema_decay: Float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, which are saved")
    elastic_full_share: Float = Field(0.4, ge=0, le=1, description="share of steps before random prefixes")
    mixed_precision: Precision = Field("auto", description="auto: bf16 on a GPU that has it, else no")
    compile: bool = Field(False, description="torch.compile the blocks of both networks")
    checkpoint_activations: bool = Field(False, description="recompute blocks backwards, to save memory")
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
    def _can_be_sharded(self) -> TrainConfig:
        if self.parallel == "fsdp" and self.optimizer == "muon":
            raise ValueError(
                "parallel=fsdp cuts matrices into pieces, which optimizer=muon needs whole: "
                "type optimizer=adamw, or parallel=ddp"
            )
        return self

    @model_validator(mode="after")
    def _divides(self) -> TrainConfig:
        if self.batch_size % self.accumulate:
            near = -(-self.batch_size // self.accumulate) * self.accumulate
            raise ValueError(
                f"batch_size={self.batch_size} is no multiple of accumulate={self.accumulate}: "
                f"type batch_size={near}"
            )
        return self
