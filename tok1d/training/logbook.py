"""Where the records of a training go: the run folder, the doctor, whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable

from tok1d.config.diagnoses import Diagnosis
from tok1d.config.schema import TrainConfig
from tok1d.distributed import is_main
from tok1d.runs import Run, RunError
from tok1d.training.doctor import Doctor, write_diagnoses
from tok1d.training.state import State


class Logbook:
    """`metrics.jsonl` with what a rerun repeats, `timings.jsonl` with what it does not, `diagnoses.json`.

    A new diagnosis is printed, and one that `stop_on` names ends the run. Raises `RunError` for that.
    """

    def __init__(self, run: Run, state: State, config: TrainConfig, on_log: Callable):
        self.run, self.state, self.config, self.on_log = run, state, config, on_log
        run.keep_metrics(state.step)
        self.doctor = Doctor(run)
        self.began = time.monotonic() - state.counts["seconds"]
        self.mark, self.step, self.waited = time.monotonic(), state.step, 0.0

    @property
    def seconds(self) -> float:
        """Of training, over all starts."""
        return time.monotonic() - self.began

    def write(self, record: dict[str, float], waited: float) -> None:
        """Keep the record of a step that is done; `waited` are the seconds spent waiting for images."""
        times = self._lap(waited)
        self.run.log("metrics.jsonl", record)
        self.run.log("timings.jsonl", {"step": record["step"]} | times)
        if is_main():
            self._heed(self.doctor.see(record | times))
        self.on_log(record | times)

    def went_back(self, evidence: str, at: int) -> None:
        """Training went back to `self.state.step` from step `at`, for the reason that `evidence` gives."""
        self.run.keep_metrics(self.state.step)
        self.mark, self.step = time.monotonic(), self.state.step
        if is_main():
            self._heed(self.doctor.see_setback(at, evidence))

    def _heed(self, found: list[Diagnosis]) -> None:
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
