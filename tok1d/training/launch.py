"""`tok1d train`: the training part of `notebooks/train.ipynb` as a plain program, in one process or many.

The processes come from `num_processes`, torchrun, `accelerate launch`, or srun. Same parameters, same run
folder: `tok1d run notebooks/train.ipynb` with the same parameters then finds the trained model, evaluates it
and finishes the run.

Each process is a `tok1d train` of its own on the same parameters, and no fork of the kernel, which is what
accelerate's `notebook_launcher` makes. Measured: a fork hangs once torch has used two OpenMP threads
(OMP_NUM_THREADS=2); and it is refused once the kernel has made an `Accelerator` or used a GPU, as the first
training, or evaluation, in a kernel does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import TrainParams
from tok1d.config.parse import own_parameters, parse_train
from tok1d.config.schema import LoopConfig, TokenizerConfig, TrainConfig
from tok1d.runs import TRY_AGAIN, Run, RunError
from tok1d.runs.files import records_in
from tok1d.system.launch import launched, run_processes, slurm_variables
from tok1d.system.processes import end_with_stdin, stop_signals
from tok1d.system.progress import Progress

if TYPE_CHECKING:  # what starts other processes needs no torch
    from tok1d.data.dataset import ImageDataset
    from tok1d.data.loader import TrainingData
    from tok1d.models.tokenizer import Tokenizer
    from tok1d.training.task import Model, Task

IMAGES = "TOK1D_IMAGES"  # the fingerprint of the images that the notebook shows


def train_anywhere(
    run: Run,
    images: ImageDataset,
    tokenizer_config: TokenizerConfig,
    config: TrainConfig,
    on_log: Callable[[dict[str, float]], None] = lambda record: None,
) -> Tokenizer:
    """`train`, in `num_processes` new processes if there is to be more than one; for notebooks.

    Raises what `train` raises.
    """
    from tok1d.training.task import TokenizerTask

    return fit_anywhere(run, TokenizerTask(tokenizer_config, config, images), images, "train", on_log)


def fit_anywhere(
    run: Run,
    task: Task[Model],
    data: TrainingData,
    command: str,
    on_log: Callable[[dict[str, float]], None] = lambda record: None,
) -> Model:
    """`fit`, in `num_processes` new processes if there is to be more than one. What each of them runs is
    `tok1d COMMAND`, with the parameters in the run folder.

    Raises what `fit` raises.
    """
    from tok1d.training.train import fit, load_trained

    if must_spawn(task.config) and not run.has_model:
        with stop_signals() as stop:
            train_in_processes(run, task.config, data.fingerprint, stop, command, on_log)
        return load_trained(run, task)
    return fit(run, task, data, on_log)


def must_spawn(config: LoopConfig) -> bool:
    """Whether this process is to start those that train. Raises `ConfigError` if the batch does not divide by
    them, or there are fewer GPUs.
    """
    spawns = config.num_processes > 1 and not launched()
    if spawns:
        config.check_batch(config.num_processes)
        import torch

        gpus = torch.cuda.device_count()
        if gpus and config.num_processes > gpus:
            raise ConfigError(
                f"num_processes={config.num_processes} but there are {gpus} GPUs: type num_processes={gpus}"
            )
    return spawns


def train_in_processes(
    run: Run,
    config: LoopConfig,
    fingerprint: str,
    stop: list,
    command: str,
    on_log: Callable[[dict[str, float]], None],
) -> None:
    """Train in `num_processes` new processes of `tok1d COMMAND`; `on_log` receives the records as they appear
    in the run folder.

    `fingerprint` is that of the data to train on, `stop` a list that is no longer empty when training is to
    end. What the processes print goes to `processes.log`. Raises `Stopped`, `RunError`.
    """
    log = run / "processes.log"
    records = Records(run)
    with open(log, "w", encoding="utf-8") as out, Progress("training", config.steps) as progress:

        def look() -> None:
            for record in records.new():
                progress.update(int(record["step"]))
                on_log(record)

        arguments = [command, "-f", str(run / "params.yaml")]
        status = run_processes(arguments, config.num_processes, stop, look, out, {IMAGES: fingerprint})
        look()
    if status == TRY_AGAIN:
        from tok1d.distributed import Stopped

        raise Stopped(progress.done, config.steps)
    if status:
        said = [
            line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        sentence = next((line.removeprefix("tok1d: ") for line in said if line.startswith("tok1d: ")), None)
        raise RunError(sentence or f"training ended with status {status} ({said[-1:]}): see {log}")


class Records:
    """The records of a run as another process writes them, each with its timing."""

    def __init__(self, run: Run):
        self.metrics, self.timings = Tail(run / "metrics.jsonl"), Tail(run / "timings.jsonl")
        self.times: dict[float, dict[str, float]] = {}

    def new(self) -> list[dict[str, float]]:
        records = self.metrics.new()
        self.times |= {timing["step"]: timing for timing in self.timings.new()}
        return [record | self.times.pop(record["step"], {}) for record in records]


class Tail:
    """Lines of JSON that another process appends to a file, or to a new file of that name."""

    def __init__(self, path: Path):
        self.path, self.rest = path, ""
        self.file: TextIO | None = None
        self.old = self._identity()  # what an earlier start left, which will be replaced

    def _identity(self) -> int | None:
        return self.path.stat().st_ino if self.path.exists() else None

    def new(self) -> list[dict[str, float]]:
        identity = self._identity()
        if identity is None or identity == self.old:
            return []
        if self.file is None or os.fstat(self.file.fileno()).st_ino != identity:
            self.file, self.rest = open(self.path, encoding="utf-8", errors="replace"), ""  # noqa: SIM115
        lines, _, self.rest = (self.rest + self.file.read()).rpartition("\n")
        return records_in(lines)


NOTEBOOK = Path("notebooks/train.ipynb")  # its own values count here too


def train_command(params: dict[str, Any], again: list[str]) -> int:
    """Train with these parameters; returns an exit status: `TRY_AGAIN` if asked to stop, with a checkpoint.

    `again` are the arguments of `tok1d` that lead here, for more processes. Raises `ConfigError`, `RunError`.
    """
    own = own_parameters(NOTEBOOK) if NOTEBOOK.exists() else {}
    configs = parse_train(own | params)
    return run_training(configs.train, again, lambda: train_here(configs))


def run_training(config: LoopConfig, again: list[str], training: Callable[[], None]) -> int:
    """Carry out `training` in this process, together with those it was launched with, or `tok1d` with the
    arguments `again` in as many processes as `config` says; returns an exit status.
    """
    os.environ.update(slurm_variables(os.environ))
    if must_spawn(config):
        with stop_signals() as stop:
            return run_processes(again, config.num_processes, stop)
    from tok1d.distributed import FailedOnOtherRank, Stopped, is_main, process_group

    end_with_stdin()
    try:
        with process_group():
            training()
    except Stopped as stopped:
        if is_main():
            print(f"tok1d: {stopped}", file=sys.stderr)
        return TRY_AGAIN
    except FailedOnOtherRank:
        return 1
    return 0


def train_here(params: TrainParams) -> None:
    """Train in this process, or with the others that it was launched with."""
    from tok1d.data.dataset import load_data
    from tok1d.distributed import is_main, main_process_first
    from tok1d.training.initialize import check_initialization
    from tok1d.training.train import train

    with main_process_first():  # the first decodes the images, the others find them in the cache
        run = Run.open(*params)
        if is_main():
            check_initialization(run, params.tokenizer, params.train)
        images, _ = load_data(params.data, params.tokenizer.image_size, run.cache)
    if os.environ.get(IMAGES, images.fingerprint) != images.fingerprint:
        raise RunError(
            f"the notebook's images are not those of data={params.data.data}: "
            f"type num_processes=1 to train on images that no parameter names"
        )
    train(run, images, params.tokenizer, params.train)
    print(f"trained: 'tok1d run {NOTEBOOK}' with the same parameters evaluates {run.path}")
