"""What a training step costs, and where the time goes; a fresh process a row.

    python -m benchmarks.step      float32, bf16, bf16 compiled, of TiTok-B: Base, 64 tokens, 256 px, batch 8
    python -m benchmarks.step tokens    16 … 256 tokens, of ViT-S/16 both sides, 256 px, batch 4
    python -m benchmarks.step refine    a refining decoder of each size behind ViT-S/16, 256 px, batch 4
    python -m benchmarks.step batch_size=64 adversarial_weight=0.1 …    any parameter of the train notebook
    python -m benchmarks.step one batch_size=64 …    a row as JSON, with the profiler's ten longest operations

Images/s are of whole steps on images of the given `data` (default: toy roads). Shares are of each part's own
forward and backward passes, timed alone: `data` is waiting for the loader, `encode` and `decode` the
networks, `perceptual` (with the pixels' losses) and `discriminator` the losses, `optimizer` clipping, update
and averaged weights. Utilization is the FLOPs of `encode`, `decode` and `refine` over their time and the
device's peak: NVIDIA's dense bf16 peak, on a CPU what a large matrix product reaches in the same process.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from accelerate import Accelerator
from torch.profiler import ProfilerActivity, profile

from tok1d.config.parse import parse_train
from tok1d.data.dataset import load_data, to_float
from tok1d.data.loader import Loader
from tok1d.models.flops import PEAKS, forward_flops
from tok1d.system.processes import end_with_stdin
from tok1d.training.parallelize import apply_compile_and_recompute
from tok1d.training.state import State
from tok1d.training.step import train_step, update
from tok1d.training.task import TokenizerTask

VIT_256 = dict(image_size=256, encoder="vit", patch_size=16, mixed_precision="no")
TITOK_B = VIT_256 | dict(
    encoder_size="B", decoder_size="B", num_latent_tokens=64, batch_size=8, toy_images=64
)
VIT_S = VIT_256 | dict(encoder_size="S", decoder_size="S", batch_size=4, toy_images=16)
SUITES: dict[str, dict[str, dict[str, Any]]] = {
    "step": {
        "float32": TITOK_B,
        "bf16": TITOK_B | dict(mixed_precision="bf16"),
        "bf16 compiled": TITOK_B | dict(mixed_precision="bf16", compile=True),
    },
    "tokens": {f"{K} tokens": VIT_S | dict(num_latent_tokens=K) for K in (16, 32, 64, 128, 256)},
    "refine": {size: VIT_S | dict(decoder_refine=size) for size in ("none", "nano", "small", "base")},
}

ONE = 10  # steps of which `one` gives the median
LONGEST = 10  # operations that a profile names


def main(*arguments: str) -> None:
    """Print a row of each of the suite's (its name as first argument: step); others are NAME=VALUE."""
    if arguments[:1] == ("one",):
        end_with_stdin()
        given = dict(text.split("=", 1) for text in arguments[1:])
        print(json.dumps(measure(VIT_256 | given, steps=ONE, profiled=True)))
        return
    suite, *texts = arguments if arguments and arguments[0] in SUITES else ("step", *arguments)
    given = dict(text.split("=", 1) for text in texts)
    for name, params in SUITES[suite].items():
        spawn = multiprocessing.get_context("spawn")  # a process of its own, so that peak memory is its own
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            facts = pool.submit(measure, params | given).result()
        print(f"{name:>14}", *(f"{fact} {value}" for fact, value in facts.items()), sep="  ", flush=True)


def measure(
    params: dict[str, Any], steps: int = 3, warm_up: int = 2, profiled: bool = False
) -> dict[str, Any]:
    """One row: images/s, share of each part, utilization, peak memory in GB; for training parameters. With
    `profiled` also the `longest` operations of a step.
    """
    with tempfile.TemporaryDirectory() as outputs:
        configs = parse_train(params | {"outputs": outputs})
        _, data, tokenizer_config, config, _ = configs
        images, _ = load_data(data, tokenizer_config.image_size, f"{outputs}/.cache")
        accelerator = Accelerator(mixed_precision=config.mixed_precision)
        device = accelerator.device
        torch.manual_seed(0)
        task = TokenizerTask(tokenizer_config, config)
        task.build()
        state = State.new(task, device)
        apply_compile_and_recompute(task.model, task.blocks(task.model), task.convolutional(), config)
        with Loader(images, config, device) as loader:

            def step() -> None:
                parts = loader.parts(state.step)
                train_step(state, parts, accelerator, logged=False)
                state.counts["step"] += 1

            timed(step, 0, warm_up)
            before = loader.waited
            seconds = timed(step, steps, 0)
            waited = (loader.waited - before) / steps
            batch = to_float(loader.parts(state.step)[0])
            memory = peak_memory(device)
            parts = {"data": waited} | {
                name: config.grad_accum_steps * timed(part, steps, 1)
                for name, part in parts_of_step(state, batch, accelerator).items()
            }
            parts["optimizer"] = timed(lambda: update(state), steps, 1)
            longest = longest_operations(step, device) if profiled else None
    flops = 3 * forward_flops(tokenizer_config) * config.batch_size  # backwards costs twice as much
    busy = sum(seconds for part, seconds in parts.items() if part in ("encode", "decode", "refine"))
    total = sum(parts.values())
    with torch.no_grad():
        output = state.model(batch)
    return {
        "ids": tuple(output.ids.shape),
        "images": tuple(output.images.shape),
        "parameters": f"{sum(p.numel() for p in state.model.parameters()) / 1e6:.1f} M",
        "images/s": round(config.batch_size / seconds, 2),
        "FLOPs": f"{flops / config.batch_size / 1e9:.0f} G an image",
        **{name: f"{part / total:.1%}" for name, part in parts.items()},
        "utilization": f"{flops / busy / peak(device):.1%} of {peak(device) / 1e12:.2f} TFLOP/s",
        "peak memory": f"{memory / 1e9:.2f} GB",
        "loader wait": f"{waited / seconds:.1%}",
        **({"device": device_name(device), "longest": longest} if profiled else {}),
    }


def parts_of_step(state: State, images: torch.Tensor, accelerator: Accelerator) -> dict[str, Callable]:
    """Each part's forward and backward pass alone, on images [b, 3, S, S] in 0 … 1."""
    model, objective, K = state.model, state.objective, state.model.config.num_latent_tokens
    with torch.no_grad(), accelerator.autocast():
        output = model(images, K)
    codes, pixels = output.codes.float(), output.images.float()

    def encode() -> None:
        with accelerator.autocast():
            tokens = model.encoder(images, K)
        tokens.float().sum().backward()

    def decode() -> None:
        with accelerator.autocast():
            decoded = model.decoder(codes)
        decoded.images.float().sum().backward()

    def refine() -> None:
        leaf = pixels.clone().requires_grad_()
        with accelerator.autocast():
            refined = model.refine(leaf, K)
        refined.float().sum().backward()

    def perceptual() -> None:
        leaf = pixels.clone().requires_grad_()
        with accelerator.autocast():
            loss, _ = objective.reconstruction(leaf, images)
        torch.autograd.grad(loss, leaf)

    def discriminator() -> None:
        leaf = pixels.clone().requires_grad_()
        with accelerator.autocast():
            torch.autograd.grad(objective.discriminator(leaf).mean(), leaf)
            loss, _ = objective.discriminator_loss(pixels, images)
        loss.backward()

    parts: dict[str, Callable] = {"encode": encode, "decode": decode} if model.decoder is not None else {}
    parts |= {"refine": refine} if model.refine is not None else {}
    parts["perceptual"] = perceptual
    return parts | ({"discriminator": discriminator} if objective.discriminator is not None else {})


def longest_operations(step: Callable, device: torch.device) -> list[dict[str, Any]]:
    """The `LONGEST` operations of a step by their own time on the device: name, calls, and share of it."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as profiler:
        step()
        if cuda:
            torch.cuda.synchronize()

    def own(row: Any) -> float:
        return row.self_device_time_total if cuda else row.self_cpu_time_total

    rows = sorted(profiler.key_averages(), key=own, reverse=True)
    total = sum(map(own, rows)) or 1.0
    return [
        {"operation": row.key, "calls": row.count, "share": f"{own(row) / total:.1%}"}
        for row in rows[:LONGEST]
    ]


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def timed(function: Callable, repeats: int, warm_up: int) -> float:
    """The median of a call's seconds; 0 if it is not repeated."""
    seconds = []
    for _ in range(warm_up + repeats):
        began = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[warm_up:]) if repeats else 0.0


def peak(device: torch.device) -> float:
    """Dense bf16 FLOP/s of the device."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = [flops for part, flops in PEAKS.items() if part in name]
        if known:
            return known[0]
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    return 2 * n**3 / timed(lambda: a @ a, 5, 2)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(*sys.argv[1:])
