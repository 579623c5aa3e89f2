"""A sweep's runs as a live table: from the run folders alone, so any machine that sees them can show it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from IPython.display import DisplayHandle
from rich.console import Group
from rich.live import Live
from typing_extensions import TypedDict

from tok1d.jupyter.tables import as_text, plain_table, show_table, terminal
from tok1d.runs import Run, RunError
from tok1d.runs.files import read_json, records_in
from tok1d.sweeps.cell import BEAT, STATUS
from tok1d.sweeps.plan import Plan
from tok1d.system.environment import headless
from tok1d.system.files import replacing
from tok1d.system.progress import clock

COLUMNS = ("run", "state", "step", "loss", "images/s", "left", "GPU", "why")
STYLES = {"running": "green", "failed": "red", "lost": "red", "done": "dim"}  # of a row in a terminal
AT_WORK = ("running", "lost")
SILENT = 12 * BEAT  # seconds without a sign of life after which a worker is taken for dead


def write_plan(plan: Plan) -> None:
    """`sweep.json`: the runs in order, with how many steps of how many images each takes."""
    with replacing(plan.folder / "sweep.json") as temporary:
        what = {"cells": lengths(plan), "eval_data": plan.config.measuring[1]}
        temporary.write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")


def lengths(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"run": cell.name, "steps": cell.train.steps, "batch_size": cell.train.batch_size}
        for cell in plan.cells
    ]


class Cells(TypedDict):
    """sweep.json"""

    cells: list[Length]


class Length(TypedDict):
    run: str
    steps: int
    batch_size: int


def read_cells(folder: Path) -> list[dict[str, Any]]:
    if not (folder / "sweep.json").is_file():
        raise RunError(f"{folder} is no sweep: start one with 'tok1d sweep params/sweeps/toy.yaml'")
    again = "type the 'tok1d sweep' that started it once more"
    return read_json(folder / "sweep.json", Cells, again)["cells"]


def rows(folder: Path, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a run: where it is, how fast, how long it will still take."""
    return [row(Run(folder / cell["run"]), cell["steps"], cell["batch_size"]) for cell in cells]


def row(run: Run, steps: int, batch_size: int) -> dict[str, Any]:
    status, age = read_status(run)
    state = status.get("state", "waiting")
    if state == "running" and age > SILENT:
        state = "lost"
    found = {"run": run.name, "state": state, "GPU": status.get("gpu", ""), "why": status.get("why", "")}
    if state == "waiting":
        return found
    record = last_record(run / "metrics.jsonl") | last_record(run / "timings.jsonl")
    if "step" in record:
        found |= {
            "step": f"{record['step']:,} / {steps:,}",
            "loss": f"{record.get('loss', float('nan')):.4f}",
        }
    if state == "running" and record.get("images_per_second"):
        speed = record["images_per_second"]
        found["images/s"] = f"{speed:,.0f}"
        found["left"] = clock((steps - record["step"]) * batch_size / speed)
    return found


def read_status(run: Run) -> tuple[dict[str, Any], float]:
    """What the worker says, and how many seconds ago it gave a sign of life."""
    with contextlib.suppress(OSError, ValueError):
        path = run / STATUS
        return json.loads(path.read_text(encoding="utf-8")), time.time() - path.stat().st_mtime
    return {}, 0.0


def last_record(path: Path) -> dict[str, Any]:
    """The last whole line of a file of JSON lines, without reading the rest."""
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            whole, _, _ = file.read().decode(errors="replace").rpartition("\n")
        return (records_in(whole) or [{}])[-1]
    return {}


def sweep_table(found: list[dict[str, Any]], height: int = 0) -> Group:
    """The rows in columns, with a line that counts states. Of more than fit into a terminal of `height` lines
    only those at work.
    """
    shown = found if not height or len(found) < height - 2 else [r for r in found if r["state"] in AT_WORK]
    table = plain_table()
    columns = [name for name in COLUMNS if any(r.get(name) for r in found)]
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name not in ("run", "why"))
    for r in shown[: height - 3 if height else None]:
        table.add_row(*(str(r.get(name, "")) for name in columns), style=STYLES.get(r["state"]))
    return Group(table, counts(found))


def counts(found: list[dict[str, Any]]) -> str:
    states = [r["state"] for r in found]
    return " · ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


class LiveTable:
    """The live table of a sweep's driver: in a terminal redrawn, in a notebook too, elsewhere a line for each
    change.
    """

    def __init__(self, plan: Plan):
        self.folder = plan.folder
        self.cells = lengths(plan)
        self.states: dict[str, str] = {}
        self.handle: DisplayHandle | None = None
        self.console = terminal()
        self.live = Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> LiveTable:
        if headless() and self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        self.live.stop()

    def update(self) -> None:
        found = rows(self.folder, self.cells)
        if not headless():
            self._display(found)
        elif self.console.is_terminal:
            self.live.update(sweep_table(found, self.console.height), refresh=True)
        else:
            self._report(found)

    def _display(self, found: list[dict[str, Any]]) -> None:
        picture = show_table([{name: r.get(name, "") for name in COLUMNS} for r in found])
        if self.handle is None:
            self.handle = DisplayHandle()
            self.handle.display(picture)
        else:
            self.handle.update(picture)

    def _report(self, found: list[dict[str, Any]]) -> None:
        for r in found:
            if self.states.get(r["run"], "waiting") != r["state"]:
                self.states[r["run"]] = r["state"]
                details = [str(r[name]) for name in ("step", "why") if r.get(name)]
                print(f"{r['run']}: {', '.join([r['state'], *details])}", flush=True)


def watch(folder: Path, every: float = 2.0) -> None:
    """Show a sweep's table until nothing of it is at work, or once where the output is no terminal."""
    cells, console = read_cells(folder), terminal()
    if not console.is_terminal:
        print(as_text(sweep_table(rows(folder, cells)), console), flush=True)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = rows(folder, cells)
            live.update(sweep_table(found, console.height), refresh=True)
            if not any(r["state"] in ("running", "waiting") for r in found):
                return
            time.sleep(every)
