"""What a sweep consists of: every run that it will make, each checked before the first one starts.

sweep: encoders                    # its folder, outputs/encoders/
base: params/reference/base.yaml        # what all runs share: a parameter file, and single parameters
params: {steps: 20000}
cells:                             # a list of differences from it; each may have a `base` of its own
  - {encoder_init: mae}
  - {encoder_init: random, random_like: dinov2}
grid: {num_latent_tokens: [16, 32, 64]}      # times every combination of these
seeds: [0, 1, 2]                             # times these
after_run: [evaluate, reconstruct]           # what follows each run
evaluation: {data: photos/val, metrics: [psnr, ssim, rfid]}      # what `evaluate` is asked for
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from tok1d.config.fields import Config, ConfigError, Float, FolderName, Int, Ints, Text
from tok1d.config.notebooks import GenerateParams, TrainParams
from tok1d.config.parse import check_counts, own_parameters, parse, parse_notebook, read_params, read_yaml
from tok1d.config.schema import DataConfig, EvalConfig, LoopConfig, RunConfig
from tok1d.runs import Run

PLACES = {  # parameters that say where a run goes, and what to type instead
    "outputs": "type -o FOLDER",
    "sweep": "write sweep: NAME into its file",
    "run": "its runs have names of their own",
}


class SweepConfig(Config):
    """A sweep file; see `tok1d.sweeps.plan`."""

    sweep: FolderName = Field("sweep", description="its folder below outputs")
    notebook: Literal["train", "generate"] = Field(
        "train", description="what each run is: a tokenizer, or a prior with its samples"
    )
    outputs: Text = Field("outputs", description="folder that holds every result")
    base: Text = Field("", description="parameter file that all runs start from")
    params: dict[str, Any] = Field({}, description="parameters of all runs")
    cells: list[dict[str, Any]] = Field([{}], description="differences, one run each")
    grid: dict[str, list[Any]] = Field({}, description="parameters, and the values each takes")
    seeds: Ints = Field((), description="seeds that each is run with; empty: as the parameters say")
    gpus_per_run: Int = Field(1, ge=1, description="GPUs that a run gets")
    after_run: list[Literal["evaluate", "reconstruct"]] = Field(
        ["reconstruct"], description="what follows each run"
    )
    evaluation: dict[str, Any] = Field({}, description="of evaluate: its data, metrics and other parameters")
    after_sweep: list[Literal["ablation", "figures", "report"]] = Field(
        ["ablation", "figures", "report"], description="what follows the last run"
    )
    limit: Float = Field(0, ge=0, description="seconds that one notebook may take; 0: as long as it needs")
    grace: Float = Field(60, gt=0, description="seconds after that for its checkpoint, before it is killed")
    retries: Int = Field(2, ge=0, description="times that a run is started again after it was killed")

    @model_validator(mode="before")
    @classmethod
    def _of_priors(cls, values: Any) -> Any:
        """What follows the runs of priors, unless told: they are measured where they are made."""
        if isinstance(values, dict) and values.get("notebook") == "generate":
            return {"after_run": [], "after_sweep": ["figures", "report"]} | values
        return values

    @property
    def measuring(self) -> tuple[EvalConfig, str]:
        """What `evaluate` is asked for, and its data. Raises `ConfigError`."""
        params = {name: value for name, value in self.evaluation.items() if name != "data"}
        return parse(params, EvalConfig, DataConfig)[0], str(self.evaluation.get("data") or "")


class Cell(NamedTuple):
    name: str
    params: dict[str, Any]  # of its notebook, `run` and `sweep` included
    configs: TrainParams | GenerateParams

    @property
    def data(self) -> DataConfig:
        return self.configs.data

    @property
    def train(self) -> LoopConfig:
        return self.configs.train

    @property
    def of_tokenizer(self) -> TrainParams:
        """The configs of a cell that trains a tokenizer."""
        assert isinstance(self.configs, TrainParams)
        return self.configs

    @property
    def run(self) -> Run:
        return Run(Path(self.params["outputs"]) / self.params["sweep"] / self.name)


class Plan(NamedTuple):
    config: SweepConfig
    cells: list[Cell]

    @property
    def folder(self) -> Path:
        return Path(self.config.outputs) / self.config.sweep


def read_plan(file: str | Path, params: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """A sweep file as a plan, with some of its values changed; `params` hold for all of its runs, but for
    what the grid and the seeds say. Raises `ConfigError` for anything that the train notebook would refuse,
    and names the cell.
    """
    file = Path(file)
    if where := [name for name in params or {} if name in PLACES]:
        raise ConfigError(f"-p {where[0]} has no place in a sweep: {PLACES[where[0]]}")
    values = {"sweep": file.stem} | read_yaml(file) | changes
    unknown = [name for name in values if name not in SweepConfig.model_fields]
    if unknown:
        known = ", ".join(SweepConfig.model_fields)
        raise ConfigError(f"{file}: {unknown[0]} is no part of a sweep: put it under params:, or use {known}")
    try:
        config = SweepConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{file}: {place} is not usable ({first['msg']}): see tok1d/sweeps/plan.py"
        ) from None
    if empty := [f"grid: {{{name}: []}}" for name, values in config.grid.items() if not values]:
        raise ConfigError(f"{file}: {empty[0]} is a sweep of no run: give it values, or leave it out")
    if not config.cells:
        raise ConfigError(f"{file}: cells: [] is a sweep of no run: give it runs, or leave it out")
    check_evaluation(config, file)
    return Plan(config, plan_cells(config, params or {}))


def check_evaluation(config: SweepConfig, file: Path) -> None:
    if config.notebook == "generate" and (config.after_run or "ablation" in config.after_sweep):
        raise ConfigError(
            f"{file}: runs of notebook: generate measure themselves: leave out after_run:, and ablation of "
            f"after_sweep:"
        )
    if config.evaluation and "evaluate" not in config.after_run:
        raise ConfigError(f"{file}: evaluation: is not used: write after_run: [evaluate, reconstruct] too")
    try:
        config.measuring  # noqa: B018
    except ConfigError as error:
        raise ConfigError(f"{file}: evaluation: {error}") from None


def complete(plan: Plan) -> bool:
    """Whether the sweep is finished, with what follows it: nothing has changed since."""
    try:
        return json.loads((plan.folder / "sweep_done.json").read_text(encoding="utf-8")) == marks(plan)
    except (OSError, ValueError):
        return False


def marks(plan: Plan) -> dict[str, Any]:
    """What `sweep_done.json` holds: the runs' parameters, when each was finished, and what was done then."""
    done = [cell.run / "done.json" for cell in plan.cells]
    times = {path.parent.name: path.stat().st_mtime_ns if path.exists() else 0 for path in done}
    parts = plan.config.model_dump(mode="json", include={"after_run", "evaluation", "after_sweep"})
    params = json.dumps([cell.params for cell in plan.cells], sort_keys=True)
    return {"params": hashlib.sha256(params.encode()).hexdigest(), "finished": times} | parts


def plan_cells(config: SweepConfig, asked: dict[str, Any]) -> list[Cell]:
    own, measuring = own_parameters(Path("notebooks", f"{config.notebook}.ipynb")), config.measuring[0]
    shared = (read_params(config.base) if config.base else {}) | config.params
    seeds = [{"seed": seed} for seed in config.seeds] or [{}]
    points = [
        dict(zip(config.grid, values, strict=True)) for values in itertools.product(*config.grid.values())
    ]
    files: dict[str, dict[str, Any]] = {}
    cells: dict[str, Cell] = {}
    for difference, point, seed in itertools.product(config.cells, points, seeds):
        base = str(difference.get("base") or "")
        if base and base not in files:
            files[base] = read_params(base)
        delta = (files[base] if base else {}) | {k: v for k, v in difference.items() if k != "base"}
        named = str(delta["run"]) if "run" in delta else name_of(difference)
        name = "-".join(filter(None, [named, name_of(point), f"s{seed['seed']}" if seed else ""])) or "run"
        where = {"outputs": config.outputs, "sweep": config.sweep, "run": name}
        params = own | shared | delta | asked | point | seed | where
        if name in cells:
            raise ConfigError(
                f"two runs of the sweep are called {name}: give each of cells: its own run: NAME"
            )
        try:
            configs = parse_notebook(config.notebook, params)
            assert isinstance(configs, TrainParams | GenerateParams)
            parse({"run": name}, RunConfig)
            if isinstance(configs, TrainParams):
                check_counts([configs.tokenizer, measuring])
        except ConfigError as error:
            raise ConfigError(f"run {name} of the sweep: {error}") from None
        cells[name] = Cell(name, params, configs)
    return list(cells.values())


def name_of(point: dict[str, Any]) -> str:
    """`{encoder_init: mae, num_latent_tokens: 64}` -> `mae-64`: values, with names where they say little."""
    words = []
    for name, value in point.items():
        said = isinstance(value, str) or name == "num_latent_tokens"
        text = str(value) if said else f"{name}-{value}"
        words.append(re.sub(r"[^\w.+]+", "-", text).strip("-"))
    return "-".join(words)
