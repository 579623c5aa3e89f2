"""Where a run's weights come from at its first step: nowhere, pretrained files, or another tokenizer."""

from __future__ import annotations

import json
from typing import Any

import torch

from tok1d.config.schema import StartConfig, TokenizerConfig, TrainConfig
from tok1d.distributed import is_main
from tok1d.losses.loss_weights import loss_weights
from tok1d.models.encoder import Encoder
from tok1d.models.finetune import start_from
from tok1d.models.load_report import start_encoder
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run


def prepare_start(run: Run, tokenizer: TokenizerConfig, config: TrainConfig) -> dict[str, Any]:
    """The report of a run that is about to train, before its images are decoded; written to the run folder.

    A run that has begun keeps the report it started with, and needs no other file than those of its losses.
    Raises `ConfigError` if a pretrained file, of encoder or losses, cannot be had.
    """
    if not run.has_model:
        loss_weights(config)
    report = read_report(run)
    if not (run.begun and report):
        with torch.random.fork_rng(devices=[]):
            if config.init_from:
                report = start_from(Tokenizer(tokenizer), config)
            else:
                report = start_encoder(Encoder(tokenizer), tokenizer, config)
        write_report(run, report)
    return report


def start_model(run: Run, model: Tokenizer, start: StartConfig) -> None:
    """Give a freshly built `model` the weights it starts from, and freeze what is to stay.

    A run that has begun takes its weights from its checkpoint. What `prepare_start` has proven of a file
    (by its sha256) is not proven again. Random choices elsewhere are not disturbed. Raises `ConfigError`.
    """
    if run.begun:
        model.encoder.freeze(start.encoder_freeze)
    elif start.init_from:
        write_report(run, start_from(model, start))
    else:
        write_report(run, start_encoder(model.encoder, model.config, start, read_report(run)))


def read_report(run: Run) -> dict[str, Any]:
    path = run / "load_report.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_report(run: Run, report: dict[str, Any]) -> None:
    if is_main():
        run.write_json("load_report.json", report)
