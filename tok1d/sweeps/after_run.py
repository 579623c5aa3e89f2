"""What follows each run of a sweep, the commands for it, and whether it was done already."""

from __future__ import annotations

from tok1d.config.metrics import CHANGES_NO_NUMBER
from tok1d.config.schema import EvalConfig
from tok1d.runs import Run, RunError
from tok1d.sweeps.plan import SweepConfig


def left(run: Run, config: SweepConfig) -> list[str]:
    """Of what follows a run, that which has not been done since the run was finished."""
    done = run / "done.json"
    since = done.stat().st_mtime if done.exists() else float("inf")

    def is_left(name: str) -> bool:
        if name == "evaluate":
            return not evaluated(run, config)
        executed = run / f"{name}.ipynb"
        return not executed.exists() or executed.stat().st_mtime < since

    return [name for name in config.after_run if is_left(name)]


def evaluated(run: Run, config: SweepConfig) -> bool:
    """Whether the run's `eval.json` has what the sweep's `evaluation` asks for, measured in the same way."""
    wanted, data = config.measuring
    try:
        found = run.evaluation
        asked = EvalConfig(**found["asked"])
    except (RunError, KeyError, ValueError):
        return False
    counts = {row["num_tokens"] for row in found["results"]}
    enough = set(wanted.metrics) <= set(asked.metrics) and set(wanted.token_counts) <= counts
    all_counts = bool(wanted.token_counts) or not asked.token_counts
    free = {name: getattr(asked, name) for name in ("metrics", "token_counts", *CHANGES_NO_NUMBER)}
    return enough and all_counts and found["data"] == data and wanted.model_copy(update=free) == asked


def arguments(run: Run, name: str, config: SweepConfig) -> list[str]:
    """The arguments of `tok1d` for what follows a run."""
    if name == "evaluate":
        pairs = [f"{key}={as_typed(value)}" for key, value in config.evaluation.items() if key != "data"]
        data = ["--data", config.measuring[1]] if config.measuring[1] else []
        return ["evaluate", str(run.path), *data, *(text for pair in pairs for text in ("-p", pair))]
    where = {"outputs": run.path.parent.parent, "sweep": run.path.parent.name, "run": run.name}
    pairs = [text for key, value in where.items() for text in ("-p", f"{key}={value}")]
    return ["run", f"notebooks/{name}.ipynb", *pairs]


def as_typed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
