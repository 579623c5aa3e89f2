"""A run is a folder, and the folder is the truth.

In `outputs/<sweep>/<run>/`:

| file | what | written by | read by |
|---|---|---|---|
| params.yaml | every parameter, resolved | `Run.open` | everybody |
| train.ipynb, reconstruct.ipynb | the executed notebooks | `jupyter.execute` | `jupyter.report` |
| load_report.json | where each weight came from, which learned | `training.initialize` | tables, doctor |
| metrics.jsonl | a record each `log_every` steps | `training.logbook` | doctor, curves, figures |
| timings.jsonl | what a rerun does not repeat of them | `training.logbook` | the same |
| tensorboard/ | the same numbers as event files | `training.logbook` | `tensorboard --logdir outputs` |
| diagnoses.json | what the doctor found, if anything | `training.doctor` | `tok1d doctor`, panel |
| last.ckpt, previous.ckpt | to continue from | `training.checkpoints` | the same |
| processes.log | what the processes of a training printed | `training.launch` | people |
| model/ | config.json, model.safetensors, README.md | `training.checkpoints` | `Tokenizer.from_pretrained` |
| eval.json, eval.parquet | numbers with their card; of each image | `evaluation.runs` | figures, sweeps |
| evaluations/ | the same two of other images, by fingerprint | the same | the same, with `eval_data` |
| recon/ | the shown images | `figures.images` | figures |
| manifest.json | code, versions, data, hardware, wall time | `Run.write_manifest` | figures, publish |
| finished.json, done.json | written last: finished, and the notebook saved | `Run.finish` | everybody |
| cell.yaml, status.json, sweep.log | of a sweep: parameters, state, output | `sweeps` | `sweeps.table` |

In `outputs/<sweep>/`: sweep.json (the plan), driver.txt (who runs it), results.csv, sweep_done.json, figures/
and report.html, all by `tok1d.sweeps`.

Every file, and each of the folders model/ and recon/, is written under a temporary name and renamed, so none
is ever half there; `tok1d.system.files.replacing`. One process writes at a time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from tok1d.config.fields import Config, ConfigError
from tok1d.config.generation import SampleConfig
from tok1d.config.notebooks import configs_of
from tok1d.config.parse import BEFORE, check_values, read_yaml, renamed
from tok1d.config.schema import RunConfig, fields
from tok1d.runs.files import Evaluation, LoadReport, Manifest, RunError, read_json, records_in
from tok1d.system.environment import describe_environment
from tok1d.system.files import replacing
from tok1d.system.processes import locked

UNDER_RUNNER = "TOK1D_RUNNER"  # set by `tok1d run`, which promotes finished.json once the notebook is saved
FREE_TO_CHANGE = {
    "outputs",
    "sweep",
    "run",
    "checkpoint_every",
    "num_processes",
    "eval_devices",
    "parallel",
    "max_unreadable",
    "stop_on",
    *fields(*configs_of("reconstruct"), SampleConfig),
}
PEER_RUNS = "peers"  # the folder of peers' evaluations, under `outputs`
PLACES = ("data", "val_data", "data_root", "bdd_labels")  # parameters that are paths of images
NOT_BEGUN = {
    "encoder_checkpoint",
    "encoder_revision",
    "init_from",
}  # free as well, until the run has weights of its own


Kind = TypeVar("Kind", bound=Config)


class Lacking(RunError):
    """A run without something that a figure shows; others can be drawn."""


class Lost(RunError):
    """What ran it was killed, or lost its machine: the same command may well succeed."""


class Params(dict[str, Any]):
    """Parameters of a run by name."""

    path: Path

    def __missing__(self, name: str) -> Any:
        raise RunError(f"{self.path} lacks {name}: {AGAIN}")


AGAIN = "bring the whole file back, or delete the folder and train it again"


class Run:
    """A run folder. `Run(path)` reads one; `Run.open(...)` makes or continues one.

    It is seen with one of its evaluations, that of its own validation images; `on` gives it with another.
    """

    def __init__(self, path: str | Path, evaluated: str | Path = ""):
        self.path = Path(path)
        self.evaluated = Path(evaluated or path)  # where eval.json and eval.parquet are

    @classmethod
    def open(cls, *configs: Config) -> Run:
        """The folder of a run with these parameters, new or to be continued. Raises `ConfigError` if it holds
        another.
        """
        run = cls(next(config for config in configs if isinstance(config, RunConfig)).folder)
        run.path.mkdir(parents=True, exist_ok=True)
        params = run.check_params(*configs)
        run.write_text("params.yaml", yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
        return run

    def check_params(self, *configs: Config) -> dict[str, Any]:
        """These parameters by name. Raises `ConfigError` if the folder holds a run of others."""
        params = {name: value for config in configs for name, value in config.model_dump(mode="json").items()}
        free = FREE_TO_CHANGE if self.begun else FREE_TO_CHANGE | NOT_BEGUN
        for name, old in (self.params if (self / "params.yaml").exists() else {}).items():
            if name not in free and name in params and params[name] != old:
                raise ConfigError(
                    f"{self.path} was started with {name}={old}, not {params[name]}: "
                    f"type another run=NAME, or delete that folder"
                )
        return params

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # ---- reading ----

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def params(self) -> Params:
        path = self._has("params.yaml")
        try:
            found = Params(BEFORE | renamed(read_yaml(path)))
            check_values(found)
        except ConfigError as error:
            words = str(error).removeprefix(f"{path} ")
            raise RunError(f"{path} is damaged ({words}): {AGAIN}") from None
        found.path = path
        return found

    @property
    def kind(self) -> str:
        """What was trained: "tokenizer", or "prior"; "peer" holds evaluations of others' tokenizers."""
        file = self / "params.yaml"
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        if "\npeer:" in text:
            return "peer"
        return "prior" if "\nprior_tokens:" in text else "tokenizer"

    @property
    def done(self) -> bool:
        """Finished; under the runner also when only the notebook's last save is missing."""
        return (self / "done.json").exists() or (
            UNDER_RUNNER in os.environ and (self / "finished.json").exists()
        )

    @property
    def has_model(self) -> bool:
        """Trained to the last step: its weights are in `model/`."""
        return (self / "model" / "config.json").exists()

    @property
    def begun(self) -> bool:
        """Whether it has weights of its own to go on from."""
        return self.has_model or (self / "last.ckpt").exists()

    def config(self, cls: type[Kind]) -> Kind:
        """The run's own parameters of one kind; paths of images as they are found from here."""
        whole = self.params
        params = {name: value for name, value in whole.items() if name in cls.model_fields}
        params |= {name: self.locate(params[name]) for name in PLACES if name in params}
        try:
            return cls(**params)
        except ValidationError as error:
            words = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise RunError(f"{whole.path} is damaged ({words}): {AGAIN}") from None

    @property
    def project(self) -> Path:
        """The folder that the run was made in, where its relative paths start; if unknown, this one."""
        params, place = self.params, Path(os.path.abspath(self.path)).parts
        made = Path(params["outputs"], params["sweep"], params["run"])
        below = not made.is_absolute() and place[-len(made.parts) :] == made.parts
        found = Path(*place[: -len(made.parts)]) if below else Path()
        return Path() if found == Path.cwd() else found

    def locate(self, where: str) -> str:
        """A path of images, as it was typed where the run was made, as it is found from here."""
        kind, _, path = where.rpartition(":") if where.startswith("hf:") else ("", "", where)
        if self.project == Path() or path in ("", "toy-roads"):
            return where
        there = (self.project / Path(path).parts[0]).exists()
        return f"{kind}{':' * bool(kind)}{self.project / path}" if there else where

    @property
    def cache(self) -> Path:
        """Decoded images, shared by every run under the same `outputs`."""
        return self.project / self.params["outputs"] / ".cache"

    @property
    def finished(self) -> Run:
        """This run, if it is finished. Raises `RunError`."""
        if not self.done:
            others = offered(self.path.parent.parent)
            raise RunError(
                f"{self.path} is not a finished run: "
                f"train it with 'tok1d run notebooks/train.ipynb -p run={self.name}'{others}"
            )
        return self

    @property
    def manifest(self) -> dict[str, Any]:
        return read_json(self._has("manifest.json"), Manifest, AGAIN)

    @property
    def evaluation(self) -> dict[str, Any]:
        again = f"measure it again with 'tok1d evaluate {self.path}'"
        if self.evaluated == self.path and self.has_model and not (self / "eval.json").exists():
            raise RunError(
                f"{self.path} was not evaluated on its validation images: type 'tok1d evaluate {self.path}'"
            )
        path = self._has("eval.json") if self.evaluated == self.path else self.evaluated / "eval.json"
        return read_json(path, Evaluation, again)

    @property
    def load_report(self) -> dict[str, Any]:
        """Empty before there is one."""
        path = self / "load_report.json"
        return read_json(path, LoadReport, f"type 'rm {path}'") if path.exists() else {}

    @property
    def evaluations(self) -> list[Run]:
        """The run with each of its evaluations, that of its own validation images first."""
        places = [self.path, *sorted((self / "evaluations").glob("[!.]*"))]
        return [Run(self.path, place) for place in places if (place / "eval.json").exists()]

    def on(self, data: str) -> Run:
        """The run as it was evaluated on `data`, which is what was typed then; empty: on its own validation
        images, of which a peer has none: its newest evaluation. Raises `RunError` if it was not.
        """
        if not data and self.kind != "peer":
            return Run(self.path)
        found = [run for run in self.evaluations if not data or run.evaluation.get("data") == data]
        if not found:
            where = data or "FOLDER"
            raise RunError(
                f"{self.path} was not evaluated on {where}: type 'tok1d evaluate {self.path} --data {where}'"
            )
        return max(found, key=lambda run: (run.evaluated / "eval.json").stat().st_mtime_ns)

    @property
    def to_evaluate(self) -> str:
        """What to type to have this evaluation made again."""
        data = self.evaluation.get("data") if (self.evaluated / "eval.json").exists() else ""
        return f"tok1d evaluate {self.path}" + (f" --data {data}" if data else "")

    @property
    def metrics(self) -> list[dict[str, float]]:
        return self._records("metrics.jsonl")

    @property
    def timings(self) -> list[dict[str, float]]:
        return self._records("timings.jsonl")

    def _records(self, name: str) -> list[dict[str, float]]:
        path = self / name
        return records_in(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else []

    def _has(self, name: str) -> Path:
        """A file of it. Raises `RunError` if it is not there."""
        if not (self / name).is_file():
            raise RunError(
                f"{self.path} has no {name}: train it first with 'tok1d run notebooks/train.ipynb'"
            )
        return self / name

    # ---- writing ----

    def write_text(self, name: str, text: str) -> None:
        """Replace a file. Like all writing, and the lock, only in the main process: nothing elsewhere."""
        if not writes():
            return
        with replacing(self / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def log(self, name: str, record: dict[str, float]) -> None:
        """Append a line to metrics.jsonl, for numbers that a rerun repeats, or to timings.jsonl."""
        if writes():
            with open(self / name, "ab+") as out:
                line = json.dumps(record) + "\n"
                if out.tell():
                    out.seek(-1, os.SEEK_END)
                    line = line if out.read() == b"\n" else "\n" + line  # of a killed process half a line
                out.write(line.encode())

    def keep_metrics(self, steps: int) -> None:
        """Drop the records after `steps`: the steps there are about to be run again."""
        kept = "".join(json.dumps(record) + "\n" for record in self.metrics_until(steps))
        self.write_text("metrics.jsonl", kept)

    def metrics_until(self, steps: int) -> list[dict[str, float]]:
        return [record for record in self.metrics if record["step"] <= steps]

    def write_manifest(self, data: dict[str, str], seconds: float, losses: dict[str, Any]) -> None:
        """Code, versions, hardware, data fingerprints, the losses' pretrained networks, seed, wall time of
        training.
        """
        training = {"data": data, "losses": losses, "seed": self.params["seed"]}
        training["train_seconds"] = round(seconds, 1)
        self.write_json("manifest.json", describe_environment() | training)

    def finish(self, **summary: Any) -> None:
        """Mark the run as finished. Under `tok1d run` the mark counts once the executed notebook is saved
        too.
        """
        if (self / "done.json").exists():
            return
        self.write_json("finished.json", summary | {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
        if UNDER_RUNNER not in os.environ:
            self.promote()

    def promote(self) -> None:
        os.replace(self / "finished.json", self / "done.json")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder alone; the lock goes with the process, however it ends. Raises `RunError` if it is
        held.
        """
        if not writes():
            yield
            return
        with open(self / ".lock", "w", encoding="utf-8") as handle:
            if not locked(handle):
                raise RunError(
                    f"{self.path} is being trained by another process: wait for it, or type another run=NAME"
                )
            yield


def writes() -> bool:
    """Whether this is the process, of those that train together, that writes the run folder."""
    from tok1d.distributed import is_main  # here, so that 'tok1d run' answers at once for a finished run

    return is_main()


def newest_finished(outputs: str | Path, kind: str = "tokenizer") -> list[Run]:
    """The finished runs of all sweeps that trained a `kind` of model, the newest first."""
    done = sorted(Path(outputs).glob("*/*/done.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [run for run in (Run(path.parent) for path in done) if run.kind == kind]


def offered(outputs: str | Path, most: int = 3) -> str:
    """What to type for the newest finished runs instead, or nothing."""
    found = [f"-p sweep={run.path.parent.name} -p run={run.name}" for run in newest_finished(outputs)[:most]]
    return f"; the newest finished ones are {', '.join(found)}" if found else ""
