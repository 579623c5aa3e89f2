"""Which parameters each notebook has: what it alone knows, and the groups that it shares with others."""

from __future__ import annotations

from typing import NamedTuple, get_type_hints

from pydantic import Field

from tok1d.config.fields import Config, Float, Int, Names, NumberName, Text
from tok1d.config.generation import (
    PriorConfig,
    PriorDataConfig,
    PriorLoopConfig,
    PriorRunConfig,
    SampleConfig,
)
from tok1d.config.peers import PeersConfig, PeersRunConfig
from tok1d.config.schema import DataConfig, EvalConfig, RunConfig, TokenizerConfig, TrainConfig

EVAL_DATA = "images whose evaluation is shown, as in 'tok1d evaluate --data'; empty: the validation images"


class ShowConfig(Config):
    """Which evaluation a notebook shows."""

    eval_data: Text = Field("", description=EVAL_DATA)


class CompareConfig(Config):
    """Which runs a notebook that compares runs reads."""

    runs: Names = Field((), description="run folders; empty: every finished run of the sweep")
    metric: NumberName = Field(
        "psnr", description="number of the evaluation to plot: psnr, ssim, rfid, kid …"
    )
    eval_data: Text = Field("", description=EVAL_DATA)


class FiguresConfig(CompareConfig):
    """What the figures notebook draws."""

    num_tokens: Int = Field(
        0, ge=0, description="token count at which kinds of runs are compared; 0: 64, or what most have"
    )


class ExploreConfig(Config):
    """What the explore notebook opens."""

    models: Names = Field(
        (),
        description="run or model folders, hub ids, peer:NAME; empty: the newest runs, and the shipped one",
    )
    photo: Text = Field("", description="path of a picture to begin with; empty: a validation image")
    show_images: Int = Field(6, ge=1, le=64, description="validation images where no kernel is needed")
    lpips_checkpoint: Text = Field("", description="local VGG16 file of LPIPS; empty: without LPIPS")
    wished_psnr: Float = Field(24, gt=0, le=60, description="dB that the fewest tokens are counted for")


# ---- the groups of each ----


class TrainParams(NamedTuple):
    """The parameters of the train notebook, of `tok1d train`, and of each run of a sweep."""

    run: RunConfig
    data: DataConfig
    tokenizer: TokenizerConfig
    train: TrainConfig
    evaluation: EvalConfig


class ReconstructParams(NamedTuple):
    run: RunConfig
    evaluation: EvalConfig
    show: ShowConfig


class AblationParams(NamedTuple):
    run: RunConfig
    compare: CompareConfig


class FiguresParams(NamedTuple):
    run: RunConfig
    compare: FiguresConfig


class GenerateParams(NamedTuple):
    """The parameters of the generate notebook: a prior is trained, sampled from, and measured."""

    run: PriorRunConfig
    data: PriorDataConfig
    prior: PriorConfig
    train: PriorLoopConfig
    sample: SampleConfig
    evaluation: EvalConfig


class ExploreParams(NamedTuple):
    run: RunConfig
    data: DataConfig
    explore: ExploreConfig


class PeersParams(NamedTuple):
    run: PeersRunConfig
    peers: PeersConfig
    evaluation: EvalConfig


Params = (
    TrainParams
    | ReconstructParams
    | AblationParams
    | FiguresParams
    | GenerateParams
    | ExploreParams
    | PeersParams
)


NOTEBOOKS: dict[str, type[Params]] = {
    "train": TrainParams,
    "reconstruct": ReconstructParams,
    "ablation": AblationParams,
    "figures": FiguresParams,
    "generate": GenerateParams,
    "explore": ExploreParams,
    "peers": PeersParams,
}


def configs_of(notebook: str) -> tuple[type[Config], ...]:
    """The configs that hold a notebook's parameters, in order."""
    return tuple(get_type_hints(NOTEBOOKS[notebook]).values())
