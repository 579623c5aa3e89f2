"""The training loop, on one page; `train` for a tokenizer, `fit` for any task.

Every random choice of step `s` (images, crops, number of tokens, noise) is a pure function of (seed, s), and
a checkpoint holds everything else, so a killed run ends with the weights it would have had. Read on in
`tok1d.training.step`, a step itself; `tok1d.training.task`, what the loop needs of a model; and
`tok1d.losses.objective`, what a tokenizer minimizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator

from tok1d.config.schema import LoopConfig, TokenizerConfig, TrainConfig
from tok1d.data.dataset import ImageDataset
from tok1d.data.loader import Loader, TrainingData
from tok1d.distributed import (
    Stopped,
    all_ranks,
    any_rank,
    equal_on_all_ranks,
    is_main,
    process_group,
    world_size,
)
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run, RunError
from tok1d.system.processes import stop_signals
from tok1d.system.progress import Progress
from tok1d.training.checkpoints import load_checkpoint, save_checkpoint, save_model
from tok1d.training.initialize import report_learning_parameters
from tok1d.training.logbook import Logbook
from tok1d.training.optim import set_learning_rate
from tok1d.training.parallelize import apply_compile_and_recompute, wrap
from tok1d.training.state import State
from tok1d.training.step import train_step
from tok1d.training.symptoms import advice
from tok1d.training.task import Model, Task, TokenizerTask

ROLLBACK_LR = 0.3  # the learning rate's factor after going back to a checkpoint


def train(
    run: Run,
    images: ImageDataset,
    tokenizer_config: TokenizerConfig,
    config: TrainConfig,
    on_log: Callable[[dict[str, float]], None] = lambda record: None,
) -> Tokenizer:
    """`fit` a tokenizer to images; returns it with averaged weights."""
    return fit(run, TokenizerTask(tokenizer_config, config, images), images, on_log)


def fit(
    run: Run,
    task: Task[Model],
    data: TrainingData,
    on_log: Callable[[dict[str, float]], None] = lambda record: None,
) -> Model:
    """Train a task's model in `run`'s folder, from where it was left; a finished one is only loaded.

    In this process, together with those it was launched with (`tok1d.training.launch` starts some). Returns
    the averaged (EMA) weights, in eval mode. `on_log` receives each record of `metrics.jsonl`. Raises
    `ConfigError`, `RunError`, and `Stopped` when asked to stop.
    """
    with process_group(), stop_signals() as stop:
        task.config.check_batch(world_size())
        if not any_rank(run.has_model):
            with run.lock():
                return loop(run, task, data, on_log, stop)
    print(f"{run.path} is trained already: loading it")
    return load_trained(run, task)


def load_trained(run: Run, task: Task[Model]) -> Model:
    """The model of a trained run, on the GPU if there is one, in eval mode."""
    return task.load(run).to("cuda" if torch.cuda.is_available() else "cpu")


def loop(run: Run, task: Task[Model], data: TrainingData, on_log: Callable, stop: list) -> Model:
    """`fit` with the folder locked; a `stop` that is no longer empty ends it after a checkpoint."""
    config = task.config
    accelerator = Accelerator(mixed_precision=precision(config))
    rank, world = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(config.seed)
    task.build(run)
    state = State.new(task, accelerator.device)
    apply_compile_and_recompute(task.model, task.blocks(task.model), task.convolutional(), config)
    if not all_ranks(restore(run, state)):
        save_checkpoint(run, state)  # to go back to; and a full disk shows now, not hours from now
    task.network = wrap(task.model, accelerator)
    logbook = Logbook(run, state, on_log)
    run.write_manifest({"train": data.fingerprint}, logbook.seconds, task.provenance)

    with Loader(data, config, accelerator.device, rank, world, state.step) as loader:
        for step in progress(state, config.steps):
            set_learning_rate(state.optimizers, step, config, ROLLBACK_LR ** state.counts["rollbacks"])
            seed(hash((config.seed, step, rank)) % 2**63, accelerator.device)
            logged = (step + 1) % config.log_every == 0 or step + 1 == config.steps
            parts = loader.parts(step)
            record = train_step(state, parts, accelerator, logged, report_learning(run, state))
            state.counts["step"] += 1
            if state.counts["nonfinite_streak"] >= config.nan_patience:
                roll_back(run, state, logbook)
                continue
            if logged:
                lr = state.model_optimizers[-1].param_groups[0]["lr"]
                record = {"step": state.step} | task.settings(step) | {"lr": lr} | record
                record["skipped"] = state.counts["skipped"]
                logbook.write(record, loader.waited)
            stopping = any_rank(bool(stop))
            due = state.step % config.checkpoint_every == 0 or state.step == config.steps or stopping
            if due and not state.counts["nonfinite_streak"]:
                state.counts["seconds"] = logbook.seconds
                save_checkpoint(run, state)
            if stopping and state.step < config.steps:
                raise Stopped(state.step, config.steps)
    save_model(run, state)
    run.write_manifest({"train": data.fingerprint}, logbook.seconds, task.provenance)
    return task.load(run).to(accelerator.device) if is_main() else state.ema.eval()


def seed(value: int, device: torch.device) -> None:
    """`torch.manual_seed`, of this device alone: that one asks every kind there is, 0.4 ms a step."""
    torch.default_generator.manual_seed(value)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(value)


def restore(run: Run, state: State) -> bool:
    """Fill `state` from the run's checkpoint; False if there is none."""
    found = load_checkpoint(run, state)
    if not equal_on_all_ranks(state.step):
        raise RunError(
            f"the processes do not find the same checkpoint in {run.path}: "
            f"type outputs=FOLDER, a folder that all nodes share"
        )
    return found


def report_learning(run: Run, state: State) -> Callable[[], None]:
    """Once, with gradients there: which weights learn. Not at step 0, where a head that starts at 0 lets no
    gradient through.
    """
    if state.step != min(1, state.task.config.steps - 1):
        return lambda: None
    return lambda: report_learning_parameters(run, state.model, state.model_optimizers, state.task.part_of)


def roll_back(run: Run, state: State, logbook: Logbook) -> None:
    """Restore the last checkpoint after too many steps without a finite gradient, and learn more slowly from
    there; the second time give up.
    """
    step, rollbacks, skipped = state.step, state.counts["rollbacks"], state.counts["skipped"]
    evidence = f"{state.counts['nonfinite_streak']} steps in a row, up to step {step}, had no finite gradient"
    if rollbacks:
        raise RunError(
            f"nan: {evidence}, again after a lower learning rate: {advice('nan', run.params)}, "
            f"and another run=NAME"
        )
    load_checkpoint(run, state)
    state.counts |= {"rollbacks": rollbacks + 1, "skipped": skipped, "nonfinite_streak": 0}
    print(f"{evidence}: back to step {state.step}, from there at {ROLLBACK_LR} of the learning rate")
    logbook.rolled_back(evidence, step)


def precision(config: LoopConfig) -> str:
    if config.mixed_precision == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return config.mixed_precision


def progress(state: State, steps: int) -> Iterator[int]:
    """Go on until `state` is at `steps`, and show how far it is."""
    with Progress("training", steps, state.step, quiet=not is_main()) as shown:
        try:
            while state.step < steps:
                yield state.step
                shown.update(state.step)
        finally:
            shown.done = state.step
