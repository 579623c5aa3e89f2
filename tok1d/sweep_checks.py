"""What is looked at before a sweep starts: that data and weights are there, and how long it will take."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from tok1d.config import ConfigError, DataConfig, LossConfig, StartConfig
from tok1d.flops import PEAKS, forward_flops, vgg_flops
from tok1d.loss_weights import loss_weights
from tok1d.parents import read_parent
from tok1d.sources import find_sources
from tok1d.sweep_plan import Cell, Plan
from tok1d.tokenizer import Tokenizer
from tok1d.weights import read_weights

PEAK_SHARE = 0.4  # of a GPU's dense bf16 peak that training reaches
PROBE = 1e11  # FLOPs of the probe's forward pass, about
STARTING = 30.0  # seconds that a run takes beside its steps


def missing(plan: Plan) -> list[str]:
    """A sentence for each thing that some run needs and that is not there."""
    found: dict[str, None] = {}
    seen = set()
    for cell in plan.cells:
        for need in (needs_data, needs_weights, needs_loss_weights):
            key = (need, *need.key(cell))
            if key not in seen:
                seen.add(key)
                try:
                    need(cell)
                except ConfigError as error:
                    found[str(error)] = None
    return list(found)


def needs_data(cell: Cell) -> None:
    find_sources(cell.data, cell.tokenizer.image_size, cell.run.path.parent.parent / ".cache")


def needs_weights(cell: Cell) -> None:
    if cell.train.init_from:
        read_parent(cell.train.init_from)
    elif cell.tokenizer.encoder_init != "random":
        read_weights(cell.tokenizer, cell.train)


def needs_loss_weights(cell: Cell) -> None:
    loss_weights(cell.train)


def part(config: object, cls: type) -> tuple:
    return tuple(str(getattr(config, name)) for name in cls.model_fields)


needs_data.key = lambda cell: (*part(cell.data, DataConfig), cell.tokenizer.image_size)
needs_weights.key = lambda cell: (
    *part(cell.train, StartConfig), cell.tokenizer.encoder_init, cell.tokenizer.encoder_size,
)  # fmt: skip
needs_loss_weights.key = lambda cell: part(cell.train, LossConfig)


# ---- how long it will take ----


class Estimate(NamedTuple):
    where: str
    slots: int  # runs at a time
    hours: float  # of the whole sweep
    longest: float  # hours of its longest run


def estimates(plan: Plan, slots: int) -> list[Estimate]:
    """On this machine, from a short probe, and on one and eight H100."""
    flops = [training_flops(cell) for cell in plan.cells]
    rate = probe(plan.cells[flops.index(min(flops))])
    gpus = plan.config.gpus_per_run
    found = [estimate("here", slots, flops, rate)]
    for count in (1, 8):
        h100 = PEAKS["H100"] * PEAK_SHARE * min(gpus, count)
        found.append(estimate(f"{count} H100", max(1, count // gpus), flops, h100))
    return found


def estimate(where: str, slots: int, flops: list[float], rate: float) -> Estimate:
    hours = sorted(((f / rate + STARTING) / 3600 for f in flops), reverse=True)
    ends = [0.0] * slots
    for each in hours:  # the longest first, each on the slot that is free first
        ends[ends.index(min(ends))] += each
    return Estimate(where, slots, max(ends), hours[0])


def training_flops(cell: Cell) -> float:
    """FLOPs of a training, forwards and backwards: encoder, decoder, and the perceptual loss."""
    image = 3 * forward_flops(cell.tokenizer)  # backwards costs twice as much
    if cell.train.perceptual_weight:
        image += 3 * vgg_flops(cell.tokenizer.image_size)  # of image and reconstruction, and backwards of one
    return image * cell.train.batch_size * cell.train.steps


def probe(cell: Cell) -> float:
    """FLOP/s that training this tokenizer reaches on this machine: the better of two steps after one."""
    config = cell.tokenizer
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
