"""What a sweep needs and takes, before it starts: data and weights of each run, hours from a short probe.

What is heavy to import is imported where it is needed, so that a sweep that needs no weights starts at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tok1d.config.fields import Config, ConfigError
from tok1d.config.generation import PriorConfig
from tok1d.config.losses import has_perceptual_network
from tok1d.config.notebooks import GenerateParams, TrainParams
from tok1d.config.peers import is_peer
from tok1d.config.schema import DataConfig, EvalConfig, LossConfig, StartConfig, TokenizerConfig
from tok1d.data.sources import find_sources
from tok1d.sweeps.plan import Cell, Plan

if TYPE_CHECKING:
    from tok1d.models.finetune import Parent
    from tok1d.models.weights import Weights

PEAK_SHARE = 0.4  # of a GPU's dense bf16 peak that training reaches
PROBE = 1e11  # FLOPs of the probe's forward pass, about
STARTING = 30.0  # seconds that a run takes beside its steps


class Estimate(NamedTuple):
    where: str
    slots: int  # runs at a time
    hours: float  # of the whole sweep
    longest: float  # hours of its longest run


def estimates(plan: Plan, slots: int, elsewhere: str = "") -> list[Estimate]:
    """On the site, with `slots` runs at a time, and on one and eight H100. This machine's speed is that of a
    short probe, which slots share on a CPU; that of a site `elsewhere`, such as params/sites/slurm.py, is
    taken to be that of H100s.
    """
    import torch

    from tok1d.models.flops import PEAKS

    if plan.config.notebook == "generate":
        return []
    flops = [training_flops(cell) for cell in plan.cells]
    gpus = plan.config.gpus_per_run
    h100 = PEAKS["H100"] * PEAK_SHARE
    if elsewhere:
        found = [estimate(f"{elsewhere}, if its GPUs are H100s", slots, flops, h100 * gpus)]
    else:
        rate = probe(plan.cells[flops.index(min(flops))]) / (1 if torch.cuda.is_available() else slots)
        found = [estimate("this machine", slots, flops, rate)]
    for count in (1, 8):
        found.append(estimate(f"{count} H100", max(1, count // gpus), flops, h100 * min(gpus, count)))
    return found


def estimate(where: str, slots: int, flops: list[float], rate: float) -> Estimate:
    hours = sorted(((f / rate + STARTING) / 3600 for f in flops), reverse=True)
    ends = [0.0] * slots
    for each in hours:  # the longest first, each on the slot that is free first
        ends[ends.index(min(ends))] += each
    return Estimate(where, slots, max(ends), hours[0])


def training_flops(cell: Cell) -> float:
    """FLOPs of a training, forwards and backwards: encoder, decoder, and the perceptual loss."""
    from tok1d.models.flops import forward_flops, vgg_flops

    config = cell.of_tokenizer
    image = 3 * forward_flops(config.tokenizer)  # backwards costs twice as much
    if has_perceptual_network(config.train):
        image += 3 * vgg_flops(config.tokenizer.image_size)  # of image and reconstruction, backwards of one
    return image * cell.train.batch_size * cell.train.steps


def probe(cell: Cell) -> float:
    """FLOP/s that training this tokenizer reaches on this machine: the better of two steps after one."""
    import torch

    from tok1d.models.flops import forward_flops
    from tok1d.models.tokenizer import Tokenizer

    config = cell.of_tokenizer.tokenizer
    batch = min(cell.train.batch_size, max(1, int(PROBE / forward_flops(config))))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer(config).to(device)
    images = torch.rand(batch, 3, config.image_size, config.image_size, device=device)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = tokenizer(images).images.float().mean()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 3 * batch * forward_flops(config) / min(seconds[1:])


def missing(plan: Plan) -> list[str]:
    """A sentence for each thing that some run needs and that is not there."""
    looks = dict.fromkeys(look for cell in plan.cells for look in needs(cell, plan))
    found: dict[str, None] = {}
    for function, *arguments in looks:
        try:
            function(*arguments)
        except ConfigError as error:
            found[str(error)] = None
    return list(found)


def needs(cell: Cell, plan: Plan) -> Iterator[tuple]:
    """Functions that raise `ConfigError` if something is not there, each with its arguments: the same ones
    for runs that need the same.
    """
    if isinstance(cell.configs, GenerateParams):
        yield open_tokenizer, cell.configs.prior
        for metric in cell.configs.evaluation.metrics:
            yield checkpoints_of_metrics, cell.configs.evaluation.model_copy(update={"metrics": (metric,)})
        return
    init = cell.of_tokenizer.tokenizer.encoder_init, cell.of_tokenizer.tokenizer.encoder_size
    size, cache = cell.of_tokenizer.tokenizer.image_size, cell.run.path.parent.parent / ".cache"
    yield find_sources, cell.data, size, cache
    yield start_checkpoint, *init, part(cell.of_tokenizer.train, StartConfig)
    yield checkpoints_of_losses, part(cell.of_tokenizer.train, LossConfig)
    if "evaluate" in plan.config.after_run:
        config, data = plan.config.measuring
        for metric in config.metrics:
            yield checkpoints_of_metrics, config.model_copy(update={"metrics": (metric,)})
        for each in filter(None, (data, config.reference_data)):
            yield find_sources, DataConfig(data=each, val_data=each), size, cache


def open_tokenizer(config: PriorConfig) -> None:
    from tok1d.generation import train

    train.open_tokenizer(config)


def start_checkpoint(init: str, size: str, start: StartConfig) -> None:
    if start.init_from:
        from tok1d.models.finetune import read_parent

        read_parent(start.init_from)
    elif init != "random":
        from tok1d.models.weights import read_weights

        read_weights(TokenizerConfig(encoder_init=init, encoder_size=size), start)


def checkpoints_of_losses(config: LossConfig) -> None:
    if config.perceptual_weight or config.adversarial_weight or config.align_weight:
        from tok1d.losses.frozen import loss_checkpoints

        loss_checkpoints(config)


def checkpoints_of_metrics(config: EvalConfig) -> None:
    from tok1d.evaluation.metrics.features import metric_checkpoints

    metric_checkpoints(config)


def pretrained_files(params: TrainParams) -> Iterator[Callable[[], Sequence[Weights | Parent]]]:
    """Functions that give the pretrained files of a training and its evaluation, one for each network, and
    fetch what is not on this machine. Each raises `ConfigError` if that cannot be had.
    """
    from tok1d.evaluation.metrics.features import metric_checkpoints
    from tok1d.losses.frozen import loss_checkpoints
    from tok1d.models.finetune import read_parent
    from tok1d.models.weights import is_hub_id, read_weights

    train, evaluation = params.train, params.evaluation
    weights = ("perceptual_weight", "adversarial_weight", "align_weight")
    for name in weights:
        alone = train.model_copy(update={other: 0.0 for other in weights if other != name})
        yield partial(loss_checkpoints, alone)
    for metric in evaluation.metrics:
        yield partial(metric_checkpoints, evaluation.model_copy(update={"metrics": (metric,)}))
    if is_hub_id(train.init_from) or is_peer(train.init_from):
        yield lambda: [read_parent(train.init_from)]
    elif not train.init_from and params.tokenizer.encoder_init != "random":
        yield lambda: [read_weights(params.tokenizer, train)]


def peer_files(name: str) -> Iterator[Callable[[], Sequence[Weights]]]:
    """The same of a peer."""
    from tok1d.models.peers import prefetch_peer

    yield partial(prefetch_peer, name)


def part(config: Config, cls: type[Config]) -> Config:
    """The values of `config` that `cls` has."""
    return cls(**{name: getattr(config, name) for name in cls.model_fields})


def describe(plan: Plan, done: list[bool], slots: int, elsewhere: str = "") -> int:
    """What would be done, what it needs that is not there, and about how long it would take, see `estimates`;
    `done` says which runs are finished.
    """
    for cell, is_done in zip(plan.cells, done, strict=True):
        print(f"{cell.name:40} {cell.train.steps:>9,} steps" + ("  finished" if is_done else ""))
    print(f"{len(plan.cells)} runs, {sum(done)} finished")
    wrong = missing(plan)
    for sentence in wrong:
        print(f"missing: {sentence}")
    todo = [cell for cell, is_done in zip(plan.cells, done, strict=True) if not is_done]
    for e in estimates(plan._replace(cells=todo), slots, elsewhere) if todo else ():
        runs = f"{e.slots} run{'s' * (e.slots > 1)} at a time"
        print(f"about {spoken(e.hours)} on {e.where} ({runs}; the longest run {spoken(e.longest)})")
    return 1 if wrong else 0


def spoken(hours: float) -> str:
    return f"{hours:,.0f} hours" if hours > 2 else f"{max(1, 60 * hours):.0f} minutes"
