"""The parameters of priors over tokens and of sampling from them: those of `notebooks/generate.ipynb`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tok1d.config.fields import Config, Float, FolderName, Int, Ints, Names, Text
from tok1d.config.schema import DataConfig, LoopConfig, RunConfig


class PriorRunConfig(RunConfig):
    """Which run folder: `<outputs>/<sweep>/<run>/`."""

    sweep: FolderName = Field("priors", description="folder of runs that belong together")


class PriorDataConfig(DataConfig):
    """Which images' ids are learned; see `tok1d.data.dataset`."""

    toy_images: Int = Field(4000, ge=1, le=10**6, description="number of toy-roads training images")


class PriorConfig(Config):
    """A prior over the ids of a trained tokenizer; see `tok1d.generation.prior`."""

    tokenizer: Text = Field(
        "outputs/published/toy-roads-64px",
        min_length=1,
        description="run folder, model folder or hub id of the tokenizer whose ids are learned",
    )
    prior: Literal["autoregressive", "masked"] = Field(
        "autoregressive", description="token by token (any length), or many tokens at once (MaskGIT)"
    )
    prior_from: Text = Field("", description="run folder of a trained prior to sample from; empty: train one")
    prior_tokens: Int = Field(
        0,
        ge=0,
        description="tokens of a sequence: an elastic tokenizer's first ones; 0: 32, or all K if that has "
        "fewer or is fixed",
    )
    prior_width: Int = Field(256, ge=32, multiple_of=32, description="width of its transformer")
    prior_depth: Int = Field(6, ge=1, description="blocks of its transformer")
    prior_dropout: Float = Field(0.1, ge=0, lt=1, description="dropout of its inputs and attention")
    factorized_head: bool = Field(
        True, description="predict FSQ's digits, LFQ's bits, instead of one softmax over the codebook"
    )
    condition: Names = Field(
        (), description="labels to ask by (weather, timeofday, scene, class); empty: all there are; or none"
    )
    condition_drop: Float = Field(
        0.1, ge=0, lt=1, description="share of sequences that are trained without their labels"
    )
    prior_crops: Int = Field(
        0, ge=0, description="random crops of an image whose ids are learned; 0: the center crop alone"
    )


class PriorLoopConfig(LoopConfig):
    """The training loop of a prior: `LoopConfig` with the field's defaults for language models."""

    steps: Int = Field(500, ge=1, description="optimizer steps")
    batch_size: Int = Field(
        48, ge=1, description="sequences a step, over all processes and accumulated parts"
    )
    beta2: Float = Field(0.95, ge=0, lt=1, description="second moment's decay")
    weight_decay: Float = Field(0.05, ge=0, le=1, description="decoupled weight decay of matrices")
    ema_decay: Float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights, which are saved")


def _guidance(value: float) -> float:
    if value < 1:
        raise ValueError("must be 1 (no guidance) or more")
    return value


class SampleConfig(Config):
    """How images are generated from a prior; see `tok1d.generation.sampling`."""

    samples: Int = Field(400, ge=1, description="images to generate and measure, of each seed")
    sample_seeds: Ints = Field((0,), min_length=1, description="seeds of samples; several give an interval")
    ask: Names = Field(
        (), description="what to ask for, as timeofday=night,weather=rainy; empty: everything equally often"
    )
    guidance: Annotated[Float, AfterValidator(_guidance)] = Field(
        2.0, description="s in u + s (c - u), logits without and with the condition; 1: no guidance"
    )
    guidance_schedule: Literal["constant", "step", "linear", "power-cosine"] = Field(
        "constant", description="s over the tokens: the same, from guidance_start on, or rising from 1"
    )
    guidance_start: Float = Field(0.2, ge=0, lt=1, description="share of tokens without guidance, of `step`")
    guidance_power: Float = Field(3.0, gt=0, description="exponent of `power-cosine`; large: rises late")
    temperature: Float = Field(1.0, ge=0, description="divides logits; 0: always the likeliest token")
    top_k: Int = Field(0, ge=0, description="only the k likeliest values of a digit; 0: all")
    top_p: Float = Field(1.0, gt=0, le=1, description="only the likeliest values that have this share")
    masked_steps: Int = Field(8, ge=1, description="steps of a masked prior")
    confidence_temperature: Float = Field(
        4.5, ge=0, description="Gumbel noise on what a masked prior is surest of, at its first step"
    )
    nearest_by: Literal["pixels", "inception", "dinov2"] = Field(
        "pixels", description="what the training image nearest to a sample is nearest by"
    )
    sample_batch_size: Int = Field(64, ge=1, description="samples at once; changes none of them")
