"""`tok1d train`: the training part of `notebooks/train.ipynb` as a plain program, in one process or many.

The processes come from `num_processes`, torchrun, `accelerate launch`, or srun. Same parameters, same run
folder: `tok1d run notebooks/train.ipynb` with the same parameters then finds the trained model, evaluates it
and finishes the run.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from tok1d.config import NOTEBOOKS, TrainConfig
from tok1d.data import load_data
from tok1d.distributed import in_turn, joined
from tok1d.params import parse
from tok1d.processes import IMAGES, follow, run_processes, start_them
from tok1d.runs import Run, RunError
from tok1d.train import stop_signals, train


def train_command(params: dict[str, Any]) -> int:
    """Train with these parameters; returns an exit status. Raises `ConfigError`, `RunError`, `Stopped`."""
    os.environ.update(slurm_variables(os.environ))
    configs = parse(params, *NOTEBOOKS["train"])
    run_config, data, tokenizer, config, _ = configs
    if start_them(config):
        with stop_signals() as stop:
            return run_processes(sys.argv[1:], config.num_processes, stop)
    follow()
    with joined():
        with in_turn():  # the first decodes the images, the others find them in the cache
            run = Run.start(*configs)
            images, _ = load_data(data, tokenizer.image_size, run.cache)
        check_images(images.fingerprint)
        train(run, images, tokenizer, config)
        print(f"trained: 'tok1d run notebooks/train.ipynb' with the same parameters evaluates {run.path}")
    return 0
