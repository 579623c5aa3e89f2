"""About how long a sweep will take, from a short probe: what `tok1d sweep --dry-run` says."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from tok1d.models.flops import PEAKS, forward_flops, vgg_flops
from tok1d.models.tokenizer import Tokenizer
from tok1d.sweeps.plan import Cell, Plan

PEAK_SHARE = 0.4  # of a GPU's dense bf16 peak that training reaches
PROBE = 1e11  # FLOPs of the probe's forward pass, about
STARTING = 30.0  # seconds that a run takes beside its steps


class Estimate(NamedTuple):
    where: str
    slots: int  # runs at a time
    hours: float  # of the whole sweep
    longest: float  # hours of its longest run


def estimates(plan: Plan, slots: int) -> list[Estimate]:
    """On this machine, from a short probe, and on one and eight H100; slots share a CPU."""
    flops = [training_flops(cell) for cell in plan.cells]
    rate = probe(plan.cells[flops.index(min(flops))]) / (1 if torch.cuda.is_available() else slots)
    gpus = plan.config.gpus_per_run
    found = [estimate("this machine", slots, flops, rate)]
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
