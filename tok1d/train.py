"""The training loop, on one page.

Every random choice of step `s` (images, crops, number of tokens) is a pure function of (seed, s), and a
checkpoint holds everything else, so a killed run ends with the weights it would have had.
"""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from tok1d.checkpoints import load_checkpoint, save_checkpoint, save_model
from tok1d.config import TokenizerConfig, TrainConfig
from tok1d.data import Images, to_float
from tok1d.headless import headless
from tok1d.load_report import add_parameters
from tok1d.losses import pixel_loss, ramp
from tok1d.optimizers import build_optimizers, set_learning_rate
from tok1d.runs import Run
from tok1d.starting import start_model
from tok1d.tokenizer import Tokenizer


def train(
    run: Run,
    images: Images,
    tokenizer_config: TokenizerConfig,
    config: TrainConfig,
    on_log: Callable[[dict[str, float]], None] = lambda record: None,
) -> Tokenizer:
    """Train a tokenizer in `run`'s folder, from where it was left; a finished one is only loaded.

    Returns the averaged (EMA) weights, in eval mode. `on_log` receives each record of `metrics.jsonl`.
    """
    with run.lock(), stop_signals() as stop:
        if run.has_model:
            print(f"{run.path} is trained already: loading it")
            return Tokenizer.from_pretrained(run / "model").eval()
        return loop(run, images, tokenizer_config, config, on_log, stop)


def loop(
    run: Run,
    images: Images,
    tokenizer_config: TokenizerConfig,
    config: TrainConfig,
    on_log: Callable,
    stop: list,
) -> Tokenizer:
    """`train` with the folder locked; a `stop` that is no longer empty ends it after a checkpoint."""
    accelerator = Accelerator(mixed_precision=precision(config))
    torch.manual_seed(config.seed)
    model = Tokenizer(tokenizer_config)
    start_model(run, model, config)
    ema = copy.deepcopy(model).requires_grad_(False).to(accelerator.device)
    optimizers = build_optimizers(model, config)
    start, seconds = load_checkpoint(run, model, ema, optimizers)
    model, *optimizers = accelerator.prepare(model.to(accelerator.device), *optimizers)
    run.keep_metrics(start)
    began = time.monotonic() - seconds
    run.write_manifest({"train": images.fingerprint}, seconds)

    for step in progress(range(start, config.steps), start, config.steps):
        batch = to_float(images.train_batch(
            step, config.batch_size, config.seed, accelerator.process_index, accelerator.num_processes
        ).to(accelerator.device))  # fmt: skip
        num_tokens = sample_num_tokens(step, tokenizer_config, config)
        set_learning_rate(optimizers, step, config)
        model.train()
        accelerator.unwrap_model(model).quantizer.entropy_weight = ramp(
            config.entropy_weight, config.entropy_weight_end, step, config.entropy_decay_steps
        )

        with accelerator.autocast():
            output = model(batch, num_tokens)
        loss = pixel_loss(output.images, batch, config) + config.quantizer_weight * output.loss
        accelerator.backward(loss)
        grad_norm = accelerator.clip_grad_norm_(model.parameters(), config.grad_clip)
        if step == min(
            1, config.steps - 1
        ):  # not at step 0: a head that starts at 0 lets no gradient through
            add_parameters(run, accelerator.unwrap_model(model), optimizers)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        update_ema(ema, accelerator.unwrap_model(model), min(config.ema_decay, (1 + step) / (10 + step)))

        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            record = {
                "step": done,
                "loss": loss.item(),
                "psnr": batch_psnr(output.images, batch),
                "num_tokens": num_tokens,
                "code_usage": code_usage(output.ids, ema.quantizer.codebook_size),
                "grad_norm": float(grad_norm),
                "lr": optimizers[-1].param_groups[0]["lr"],
            }
            run.log(record)
            on_log(record)
        if done % config.checkpoint_every == 0 or done == config.steps or stop:
            save_checkpoint(
                run, done, accelerator.unwrap_model(model), ema, optimizers, time.monotonic() - began
            )
        if stop and done < config.steps:
            raise KeyboardInterrupt(f"stopped after step {done}; the same command continues from there")
    save_model(run, ema)
    run.write_manifest({"train": images.fingerprint}, time.monotonic() - began)
    return ema.eval()


def precision(config: TrainConfig) -> str:
    if config.mixed_precision == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return config.mixed_precision


def sample_num_tokens(step: int, tokenizer: TokenizerConfig, config: TrainConfig) -> int:
    """How many tokens step `step` keeps: all K, or once an elastic tokenizer has learned to use them a random
    prefix.

    Counts are drawn from 1, 2, 4 … K (nested dropout, Rippel et al. 2014; powers of two as in FlexTok,
    arXiv:2502.13967). `python -m tok1d.bench elastic` draws the loss against the step for other choices of
    `elastic_full_share`, of counts, and with or without `token_mixing`.
    """
    if not tokenizer.elastic or step < config.elastic_full_share * config.steps:
        return tokenizer.num_latent_tokens
    return int(np.random.default_rng((config.seed, 2, step)).choice(tokenizer.token_counts))


@torch.no_grad()
def update_ema(ema: Tokenizer, model: Tokenizer, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)


def code_usage(ids: Tensor, codebook_size: int) -> float:
    """Distinct codes in `ids`, as a share of the most there could be."""
    return ids.unique().numel() / min(ids.numel(), codebook_size)


@torch.no_grad()
def batch_psnr(reconstruction: Tensor, images: Tensor) -> float:
    """Mean PSNR over the batch, dB."""
    mse = (reconstruction.float().clamp(0, 1) - images).square().mean((1, 2, 3))
    return float((-10 * mse.clamp_min(1e-10).log10()).mean())


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Turn Ctrl-C, a kernel interrupt and SIGTERM into a list that is no longer empty: the step ends, then we
    stop.
    """
    received: list[int] = []
    try:
        old = {
            s: signal.signal(s, lambda number, frame: received.append(number))
            for s in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:  # not in the main thread, where signals are somebody else's
        old = {}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def progress(steps: range, start: int, total: int) -> Iterator[int]:
    """A plain progress bar; seldom redrawn when nobody watches."""
    return iter(
        tqdm(steps, "training", total, initial=start, unit="step", mininterval=30 if headless() else 1)
    )
