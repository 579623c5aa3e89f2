"""The records of a training: what each says of a step, and where it goes: the run folder, the doctor, whoever
watches. Numbers are of the whole batch, however it was split.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from tok1d.config.registry import Diagnosis
from tok1d.distributed import is_main, mean_over_processes, world_size
from tok1d.runs import Run, RunError
from tok1d.training.doctor import Doctor, write_diagnoses
from tok1d.training.parallelize import norm
from tok1d.training.state import State


def summarize(
    parts: list[dict[str, Tensor]], summary: Callable[[dict[str, Tensor], int], dict[str, float]]
) -> dict[str, float]:
    """The means over the parts of a step, and over processes, as numbers. Of means that are tensors `summary`
    makes numbers, given the count of parts.
    """
    means = {
        name: mean_over_processes(torch.stack([part[name].detach().float() for part in parts]).mean(0))
        for name in sorted(parts[0])
    }
    numbers = {name: mean.item() for name, mean in means.items() if mean.ndim == 0}
    tensors = {name: mean for name, mean in means.items() if mean.ndim > 0}
    return numbers | summary(tensors, len(parts) * world_size())


def gradient_norms(parts: dict[str, list[Tensor]]) -> dict[str, float]:
    """L2 norms of the gradient of each part of a model."""
    return {
        f"grad_norm_{name}": norm(p.grad for p in parameters if p.grad is not None)
        for name, parameters in parts.items()
    }


class EventFiles:
    """Records as TensorBoard's event files, from `step` on: `tensorboard --logdir outputs` shows all runs.

    A run that is continued writes another file, and TensorBoard forgets what an earlier one has beyond
    `step`. What cannot be written is left out: these files are to look at, the truth is in `metrics.jsonl`.
    """

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter  # here: nobody else needs it

        self.writer = None
        with suppress(OSError):
            self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, record: dict[str, float]) -> None:
        if self.writer is None:
            return
        try:
            for name, value in record.items():
                if name != "step":
                    self.writer.add_scalar(name, value, int(record["step"]))
            self.writer.flush()
        except (OSError, RuntimeError):
            self.writer = None


class Logbook:
    """`metrics.jsonl` with what a rerun repeats, `timings.jsonl` with what it does not, `diagnoses.json`, and
    all numbers as TensorBoard's event files.

    A new diagnosis is printed, and one that `stop_on` names ends the run. Raises `RunError` for that.
    """

    def __init__(self, run: Run, state: State, on_log: Callable):
        self.run, self.state, self.config, self.on_log = run, state, state.task.config, on_log
        run.keep_metrics(state.step)
        self.doctor = Doctor(run)
        self.began = time.monotonic() - state.counts["seconds"]
        self.mark, self.step, self.waited = time.monotonic(), state.step, 0.0
        self.events = EventFiles(run / "tensorboard", state.step) if is_main() else None

    @property
    def seconds(self) -> float:
        """Of training, over all starts."""
        return time.monotonic() - self.began

    def write(self, record: dict[str, float], waited: float) -> None:
        """Keep the record of a step that is done; `waited` are the seconds spent waiting for images."""
        times = self._lap(waited)
        self.run.log("metrics.jsonl", record)
        self.run.log("timings.jsonl", {"step": record["step"]} | times)
        if self.events is not None:
            self.events.write(record | times)
            self._react(self.doctor.see(record | times))
        self.on_log(record | times)

    def rolled_back(self, evidence: str, at: int) -> None:
        """Training went back to `self.state.step` from step `at`, for the reason that `evidence` gives."""
        self.run.keep_metrics(self.state.step)
        self.mark, self.step = time.monotonic(), self.state.step
        if self.events is not None:
            self.events = EventFiles(self.run / "tensorboard", self.state.step)
            self._react(self.doctor.see_rollback(at, evidence))

    def _react(self, found: list[Diagnosis]) -> None:
        write_diagnoses(self.run, found)
        for diagnosis in found:
            if diagnosis.name in self.config.stop_on:
                raise RunError(str(diagnosis))
            print(diagnosis)

    def _lap(self, waited: float) -> dict[str, float]:
        """Images a second since the last record, and the share of that time spent waiting for images."""
        now = time.monotonic()
        took, images = max(now - self.mark, 1e-9), (self.state.step - self.step) * self.config.batch_size
        wait = (waited - self.waited) / took
        self.mark, self.step, self.waited = now, self.state.step, waited
        return {"images_per_second": round(images / took, 2), "loader_wait": round(wait, 4)}
