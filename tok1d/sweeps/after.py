"""What follows each run of a sweep, and its last one: evaluations, the table of results, the comparisons, the
report, and who failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tok1d.config.parse import renamed
from tok1d.config.registry import CHANGES_NO_NUMBER
from tok1d.config.schema import EvalConfig
from tok1d.evaluation.card import card_id, protocol
from tok1d.figures.series import LINEAR, series_of
from tok1d.runs import Run, RunError
from tok1d.sweeps.plan import Cell, Plan, SweepConfig, marks
from tok1d.system.files import replacing
from tok1d.system.processes import FOLLOWS


def pending_steps(run: Run, config: SweepConfig) -> list[str]:
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
    """Whether the run has what the sweep's `evaluation` asks for, on its data, measured in the same way."""
    from tok1d.evaluation.table import table_of  # here: a worker of a sweep is to start at once

    wanted, data = config.measuring
    try:
        found = run.on(data).evaluation
        asked = EvalConfig(**renamed(found["asked"]))
        table_of(run.on(data))
    except (RunError, KeyError, ValueError):
        return False
    counts = {row["num_tokens"] for row in found["results"]}
    enough = set(wanted.metrics) <= set(asked.metrics) and set(wanted.token_counts) <= counts
    all_counts = bool(wanted.token_counts) or not asked.token_counts
    free = {name: getattr(asked, name) for name in ("metrics", "token_counts", *CHANGES_NO_NUMBER)}
    return enough and all_counts and found.get("data", "") == data and wanted.model_copy(update=free) == asked


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


LAST_LINES = 5  # of a failed run's log


def after_sweep(plan: Plan, failed: dict[str, str]) -> None:
    """Write results and failures; execute the comparing notebooks and build the report, if a run is done."""
    write_failures(plan, failed)
    rows = results(plan)
    if not rows:
        return
    write_results(plan, rows)
    wrong = []
    for name in plan.config.after_sweep:
        where = ["-p", f"outputs={plan.config.outputs}", "-p", f"sweep={plan.config.sweep}"]
        arguments = ["report", str(plan.folder)]
        if name != "report":
            arguments = ["run", f"notebooks/{name}.ipynb", *where]
        command = [sys.executable, "-m", "tok1d.cli", *arguments]
        said = followed(command)
        if said.returncode:
            last = (said.stderr.strip() or said.stdout.strip()).splitlines()[-1:]
            wrong.append(f"{name} failed: {' '.join(last).removeprefix('tok1d: ')}")
        else:
            print(said.stdout.strip().splitlines()[-1])
    if wrong:
        raise RunError(f"the runs are done, but {'; '.join(wrong)}")
    if not failed:
        with replacing(plan.folder / "sweep_done.json") as temporary:
            temporary.write_text(json.dumps(marks(plan), indent=1) + "\n", encoding="utf-8")


def followed(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of ours that ends when this process does, however that happens."""
    theirs, ours = os.pipe()
    try:
        env = os.environ | {FOLLOWS: "1"}
        return subprocess.run(
            command, stdin=theirs, env=env, capture_output=True, text=True, errors="replace"
        )  # fmt: skip
    finally:
        os.close(theirs)
        os.close(ours)


def write_failures(plan: Plan, failed: dict[str, str]) -> None:
    """`failed.json`, and on the screen: each run that failed, why, and the last lines of its log."""
    found = {}
    for cell in plan.cells:
        if cell.name in failed:
            log = cell.run / "sweep.log"
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            last = said.splitlines()[-LAST_LINES:]
            found[cell.name] = {"why": failed[cell.name], "log": str(log), "last": last}
            print(f"failed: {cell.name}: {failed[cell.name]}", *(f"    {line}" for line in last), sep="\n")
    with replacing(plan.folder / "failed.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{sum((c.run / 'done.json').exists() for c in plan.cells)} of {len(plan.cells)} runs are finished")


def results(plan: Plan) -> list[dict[str, Any]]:
    """A row for each finished run and token count: its line in figures, what sets it apart, numbers, folder,
    and `card`, the same for numbers that were measured alike. Before them the linear code of equal bits.
    """
    data = plan.config.measuring[1]
    cells = [cell for cell in plan.cells if (cell.run / "done.json").exists() and is_measured(cell.run, data)]
    names = varying(plan.cells)
    lines = {run.name: label for label, members in series_of([c.run for c in cells]) for run in members}
    line_to_beat: dict[int, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for cell in cells:
        evaluation = cell.run.on(data).evaluation
        measured = {"card": card_id(protocol(evaluation["card"])), "path": str(cell.run.path)}
        differs = {name: cell.params.get(name) for name in names}
        for numbers in evaluation.get("linear_code") or ():
            row = {"run": cell.name, "series": LINEAR} | dict.fromkeys(names) | numbers | measured
            line_to_beat.setdefault(numbers["num_tokens"], row)
        for numbers in evaluation["results"]:
            rows.append({"run": cell.name, "series": lines[cell.name]} | differs | numbers | measured)
    rows = [line_to_beat[count] for count in sorted(line_to_beat)] + rows
    return [{name: flat(value) for name, value in row.items()} for row in rows]


def is_measured(run: Run, data: str) -> bool:
    """False where the evaluation that the sweep asks for has failed."""
    return not data or any(each.evaluation.get("data") == data for each in run.evaluations)


def varying(cells: list[Cell]) -> list[str]:
    """Parameters that are not the same in all cells."""
    names = dict.fromkeys(name for cell in cells for name in cell.params)
    return [n for n in names if n != "run" and len({str(cell.params.get(n)) for cell in cells}) > 1]


def flat(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)


def write_results(plan: Plan, rows: list[dict[str, Any]]) -> None:
    """`results.parquet` and `results.csv`."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    with replacing(plan.folder / "results.parquet") as temporary:
        frame.to_parquet(temporary)
    with replacing(plan.folder / "results.csv") as temporary:
        frame.to_csv(temporary, index=False)
