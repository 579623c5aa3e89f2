"""Where a tokenizer's weights come from at a run's first step: nowhere, pretrained files, or another
tokenizer. And, of any task, which weights learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tok1d.config.fields import ConfigError
from tok1d.config.schema import StartConfig, TokenizerConfig, TrainConfig
from tok1d.data.dataset import ImageDataset, WholeImages
from tok1d.distributed import is_main
from tok1d.losses.frozen import loss_checkpoints
from tok1d.models.encoder import Encoder
from tok1d.models.finetune import load_from_tokenizer
from tok1d.models.linear import LinearTokenizer
from tok1d.models.pretrained import load_pretrained_encoder
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run
from tok1d.system.files import replacing
from tok1d.training.parallelize import full_tensors


def check_initialization(run: Run, tokenizer: TokenizerConfig, config: TrainConfig) -> dict[str, Any]:
    """The report of a run that is about to train, before its images are decoded; written to the run folder.

    A run that has begun keeps the report it started with, and needs no other file than those of its losses.
    Raises `ConfigError` if a pretrained file, of encoder or losses, cannot be had.
    """
    if not run.has_model:
        loss_checkpoints(config)
    report = run.load_report
    if not (run.begun and report):
        with torch.random.fork_rng(devices=[]):
            if config.init_from:
                report = load_from_tokenizer(Tokenizer(tokenizer), config)
            elif tokenizer.encoder == "linear":
                report = LINEAR_REPORT
            else:
                report = load_pretrained_encoder(Encoder(tokenizer), tokenizer, config)
        write_report(run, report)
    return report


LINEAR_REPORT = {  # of a code that is fitted to the training images, before the first step
    "network": "linear code", "source": "fitted to the training images", "tensors": [],
    "fair_pair": "any other seed", "differences_from_plain_random": [],
}  # fmt: skip


def initialize_model(
    run: Run, model: Tokenizer, start: StartConfig, images: ImageDataset | None = None
) -> None:
    """Give a freshly built `model` the weights it starts from, and freeze what is to stay.

    A run that has begun takes its weights from its checkpoint. What `check_initialization` has proven of a
    file (by its sha256) is not proven again. Random choices elsewhere are not disturbed. Raises
    `ConfigError`.
    """
    if run.begun:
        model.encoder.freeze(start.encoder_freeze)
    elif start.init_from:
        write_report(run, load_from_tokenizer(model, start))
    elif isinstance(model.encoder, LinearTokenizer):
        if images is None:
            raise ConfigError("encoder=linear is fitted to images: give train() a data set of images")
        model.encoder.fit_once(WholeImages(images), images.fingerprint, Path(run.cache), replacing)
        write_report(run, LINEAR_REPORT)
    else:
        write_report(run, load_pretrained_encoder(model.encoder, model.config, start, run.load_report))
    model.learn_only(start.trainable)


def write_report(run: Run, report: dict[str, Any]) -> None:
    if is_main():
        run.write_json("load_report.json", report)


def report_learning_parameters(
    run: Run, model: nn.Module, optimizers: list, part_of: Callable[[str], str]
) -> None:
    """Add to the run's report, between a backward pass and its step, which parameters learn, by the part that
    `part_of` gives for a name.

    Raises `ConfigError` if a trainable one is in no optimizer or two, or is reached by no gradient, or a
    frozen one is in an optimizer.
    """
    report = run.load_report
    run.write_json("load_report.json", report | {"parameters": learning_report(model, optimizers, part_of)})


def learning_report(
    model: nn.Module, optimizers: list, part_of: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Tensors of each part: trainable, in an optimizer, with a gradient, with one that is not 0."""
    times_optimized = Counter(id(p) for o in optimizers for group in o.param_groups for p in group["params"])
    rows: dict[str, Counter] = {}
    for name, p in model.named_parameters():
        if times_optimized[id(p)] != int(p.requires_grad):
            kind = "trainable" if p.requires_grad else "frozen"
            raise ConfigError(
                f"{name} is {kind} but in {times_optimized[id(p)]} optimizers: "
                f"type encoder_freeze=none, and report this"
            )
        if p.requires_grad and p.grad is None:
            raise ConfigError(f"{name} is trainable but reached by no gradient: report this")
        row = rows.setdefault(part_of(name), Counter())
        row.update(
            tensors=1, trainable=int(p.requires_grad), in_an_optimizer=times_optimized[id(p)],
            with_gradient=int(p.grad is not None), gradient_not_0=int(p.grad is not None and
            bool(full_tensors(p.grad).any())),
        )  # fmt: skip
    return [{"part": part, **counts} for part, counts in rows.items()]
