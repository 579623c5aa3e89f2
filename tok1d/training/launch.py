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
from pathlib import Path
from typing import Any

from tok1d.config.parse import parse
from tok1d.config.schema import NOTEBOOKS, Config
from tok1d.data.dataset import load_data
from tok1d.distributed import Elsewhere, Stopped, in_turn, is_main, joined
from tok1d.following import follow
from tok1d.jupyter.execute import own_parameters
from tok1d.runs import Run, RunError
from tok1d.training.initialize import prepare_start
from tok1d.training.processes import IMAGES, STOPPED, run_processes, start_them
from tok1d.training.train import stop_signals, train

NOTEBOOK = Path("notebooks/train.ipynb")  # its own values count here too


def train_command(params: dict[str, Any], again: list[str]) -> int:
    """Train with these parameters; returns an exit status: `STOPPED` if asked to stop, with a checkpoint.

    `again` are the arguments of `tok1d` that lead here, for more processes. Raises `ConfigError`, `RunError`.
    """
    os.environ.update(slurm_variables(os.environ))
    own = own_parameters(NOTEBOOK) if NOTEBOOK.exists() else {}
    configs = parse(own | params, *NOTEBOOKS["train"])
    if start_them(configs[3]):
        with stop_signals() as stop:
            return run_processes(again, configs[3].num_processes, stop)
    follow()
    try:
        with joined():
            train_here(configs)
    except Stopped as stopped:
        if is_main():
            print(f"tok1d: {stopped}", file=sys.stderr)
        return STOPPED
    except Elsewhere:
        return 1
    return 0


def train_here(configs: tuple[Config, ...]) -> None:
    """Train in this process, or with the others that it has joined."""
    _, data, tokenizer, config, _ = configs
    with in_turn():  # the first decodes the images, the others find them in the cache
        run = Run.start(*configs)
        if is_main():
            prepare_start(run, tokenizer, config)
        images, _ = load_data(data, tokenizer.image_size, run.cache)
    if os.environ.get(IMAGES, images.fingerprint) != images.fingerprint:
        raise RunError(
            f"the notebook's images are not those of data={data.data}: "
            f"type num_processes=1 to train on images that no parameter names"
        )
    train(run, images, tokenizer, config)
    print(f"trained: 'tok1d run {NOTEBOOK}' with the same parameters evaluates {run.path}")


def slurm_variables(env: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would set, for a task of an srun with several; empty elsewhere, and under torchrun."""
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) == 1 or "RANK" in env:
        return {}
    node = "127.0.0.1" if env.get("SLURM_STEP_NUM_NODES") == "1" else first_node(env["SLURM_STEP_NODELIST"])
    return {
        "RANK": env["SLURM_PROCID"],
        "LOCAL_RANK": env["SLURM_LOCALID"],
        "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
        "LOCAL_WORLD_SIZE": env["SLURM_STEP_TASKS_PER_NODE"].split("(")[0].split(",")[0],
        "MASTER_ADDR": env.get("MASTER_ADDR") or node,
        "MASTER_PORT": env.get("MASTER_PORT") or str(port(env)),
    }


def first_node(nodes: str) -> str:
    """`gpu[07-09,12],login2` -> `gpu07`: the first name of Slurm's short form of a list."""
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", nodes).split(",")[0]


def port(env: Mapping[str, str]) -> int:
    """The same in all tasks of a job's step, another in the steps beside it; below what systems hand out."""
    return 15_000 + (int(env["SLURM_JOB_ID"]) * 101 + int(env["SLURM_STEP_ID"])) % 15_000
