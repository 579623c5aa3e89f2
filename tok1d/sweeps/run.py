"""`tok1d sweep`: many runs on one machine or a cluster, each in its own run folder; the same command goes on.

The engine is Parsl, and nothing else knows it: a site file (params/sites/) is a plain Parsl `config`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import runpy
import shlex
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parsl
import yaml
from parsl.config import Config
from parsl.curvezmq import create_certificates
from parsl.errors import OptionalModuleMissing
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse_notebook
from tok1d.runs import RunError
from tok1d.sweeps.after import after_sweep, pending_steps
from tok1d.sweeps.cell import CellFailed, run_cell
from tok1d.sweeps.dry_run import describe, missing
from tok1d.sweeps.plan import Cell, Plan
from tok1d.sweeps.table import LiveTable, read_status, write_plan
from tok1d.system.files import remove_abandoned, replacing, scratch
from tok1d.system.processes import locked

SITE = Path("params/sites/local.py")
# Parsl's own would outlive a killed driver for good, with its pools, and take runs of the next one. Ctrl-C,
# which all processes of a terminal hear, would end it before the driver, and that would wait for it for ever.
INTERCHANGE = """
import runpy, signal, sys
from tok1d.system.processes import end_with_parent
signal.signal(signal.SIGINT, signal.SIG_IGN)
end_with_parent(int(sys.argv.pop()))
runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__")
"""
# and multiprocessing's manager a killed pool
POOL = """
import os, runpy
from multiprocessing.managers import SyncManager
from tok1d.system.processes import end_with_parent
start = SyncManager.start
SyncManager.start = lambda self: start(self, end_with_parent, (os.getpid(),))
runpy.run_module("parsl.executors.high_throughput.process_worker_pool", run_name="__main__", alter_sys=True)
"""


def run_sweep(plan: Plan, site: Path = SITE) -> int:
    """Run what is left of a sweep; returns an exit status: 1 if some run failed. Raises `ConfigError`,
    `RunError`. From a notebook: `run_sweep(read_plan("params/sweeps/toy.yaml"))`.
    """
    with alone(plan):
        todo = [cell for cell in plan.cells if not finished(cell, plan)]
        wrong = missing(plan._replace(cells=todo))
        if wrong:
            raise ConfigError(wrong[0])
        for cell in plan.cells:
            if cell.run.begun:
                cell.run.check_params(*parse_notebook(plan.config.notebook, cell.params))
        for cell in todo:
            prepare(cell)
        write_plan(plan)
        failed = run_all(plan, todo, load_site(site, plan)) if todo else {}
        after_sweep(plan, failed)
    return 1 if failed else 0


def dry_run(plan: Plan, site: Path = SITE) -> int:
    """Print what `run_sweep` would do, what is missing for it, and the hours; the exit status."""
    executors = load_site(site, plan).executors
    slots = sum(slots_of(executor) for executor in executors)
    elsewhere = "" if all(map(is_here, executors)) else str(site)
    return describe(plan, [finished(cell, plan) for cell in plan.cells], slots, elsewhere)


def finished(cell: Cell, plan: Plan) -> bool:
    """Whether nothing is left to do for it; a worker killed at its end has not said so in `status.json`."""
    said = read_status(cell.run)[0].get("state", "done")
    return (cell.run / "done.json").exists() and not pending_steps(cell.run, plan.config) and said == "done"


def prepare(cell: Cell) -> None:
    """The run's folder with its parameters; those of an earlier plan do not bind a run that has not begun."""
    if not cell.run.begun:
        (cell.run / "params.yaml").unlink(missing_ok=True)
    with replacing(cell.run / "cell.yaml") as temporary:
        temporary.write_text(
            yaml.safe_dump(cell.params, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )


# ---- Parsl ----


def load_site(site: Path, plan: Plan) -> Config:
    """The `config` of a site file, fitted to the sweep: groups of GPUs, retries, where its own files go."""
    if not site.is_file():
        raise ConfigError(
            f"there is no site file {site}: type --site params/sites/local.py, or another of there"
        )
    config = _run_site(site).get("config")
    if not isinstance(config, Config):
        raise ConfigError(f"{site} defines no Parsl config: write config = parsl.Config(executors=[…])")
    for executor in config.executors:
        if isinstance(executor, HighThroughputExecutor):
            executor.available_accelerators = groups(
                executor.available_accelerators, plan.config.gpus_per_run
            )
            executor.interchange_launch_cmd = [sys.executable, "-c", INTERCHANGE, str(os.getpid())]
            if is_here(executor):
                pool = shlex.join([sys.executable, "-c", POOL])
                executor.launch_cmd = executor.launch_cmd.replace("process_worker_pool.py", pool)
    config.retries, config.retry_handler = plan.config.retries, cost
    config.run_dir = str((plan.folder / ".parsl").absolute())
    return config


def _run_site(site: Path) -> dict[str, Any]:
    """The names that a site file defines: whatever goes wrong in it is its author's to mend."""
    try:
        return runpy.run_path(str(site))
    except ConfigError:
        raise
    except OptionalModuleMissing as error:
        needed = " ".join(error.module_names)
        raise ConfigError(f"{site} needs {needed}: type 'pip install {needed}'") from None
    except (Exception, SystemExit) as error:
        calls = traceback.extract_tb(error.__traceback__)
        lines = [call.lineno for call in calls if call.filename == str(site)]
        line = error.lineno if isinstance(error, SyntaxError) else next(iter(lines), None)
        where = f" line {line}" if line else ""
        raise ConfigError(
            f"{site}{where} cannot be used ({type(error).__name__}: {error}): mend it, "
            f"or type --site params/sites/local.py"
        ) from None


def groups(gpus: list[str], size: int) -> list[str]:
    """`["0", "1", "2", "3"]` in twos -> `["0,1", "2,3"]`, each what a run sees as CUDA_VISIBLE_DEVICES."""
    if len(gpus) < size and gpus:
        raise ConfigError(f"gpus_per_run={size} but the site has {len(gpus)}: type gpus_per_run={len(gpus)}")
    return [",".join(gpus[i : i + size]) for i in range(0, len(gpus) - size + 1, size)]


def slots_of(executor: object) -> int:
    """Runs at a time that an executor can come to."""
    each = len(getattr(executor, "available_accelerators", ())) or getattr(
        executor, "max_workers_per_node", 1
    )
    provider = getattr(executor, "provider", None)
    nodes = getattr(provider, "max_blocks", 1) * getattr(provider, "nodes_per_block", 1)
    return max(1, int(min(each, 10**6)) * nodes)


def is_here(executor: object) -> bool:
    """Whether its runs are processes of this machine."""
    return isinstance(getattr(executor, "provider", None), LocalProvider)


def cost(error: Exception, task: Any) -> float:
    """What a failure takes of a run's `retries`: all of them, unless it was merely killed."""
    return float("inf") if isinstance(error, CellFailed) and not error.again else 1


def run_all(plan: Plan, todo: list[Cell], config: Config) -> dict[str, str]:
    """Run the cells, with a live table; returns why those failed that did. Ctrl-C stops all, with
    checkpoints.
    """
    logging.raiseExceptions = False  # no traceback for each line that Parsl cannot log on a full disk
    project = str(Path.cwd())
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH")]))
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with scratch() as keys, parsl.load(with_keys(config, keys)) as kernel:
        app = parsl.python_app(run_cell, data_flow_kernel=kernel)
        futures = {c.name: app(str(c.run.path.absolute()), project, plan.config) for c in todo}
        with LiveTable(plan) as table:
            while not all(future.done() for future in futures.values()):
                table.update()
                time.sleep(1)
    return {name: str(why) for name, future in futures.items() if (why := future.exception())}


def with_keys(config: Config, folder: Path) -> Config:
    """Parsl encrypts what driver and workers tell each other, or any user of the machine could send them
    code. Keys that this machine alone needs lie in `folder`: not every disk can keep them private.
    """
    for executor in config.executors:
        if isinstance(executor, HighThroughputExecutor) and executor.encrypted and is_here(executor):
            executor.cert_dir = executor.cert_dir or create_certificates(folder / executor.label)
    return config


@contextlib.contextmanager
def alone(plan: Plan) -> Iterator[None]:
    """Drive the sweep alone. Raises `RunError` if another process does."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    who = plan.folder / "driver.txt"
    with open(plan.folder / ".driver.lock", "w", encoding="utf-8") as handle:
        if not locked(handle):
            raise RunError(
                f"{plan.folder} is being run by {who.read_text(encoding='utf-8').strip()}: "
                f"watch it with 'tok1d watch {plan.folder}', or type sweep: NAME for another"
            )
        with replacing(who) as temporary:
            temporary.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        remove_abandoned(Path(tempfile.gettempdir()))  # keys of a killed driver: there may be no run left
        yield
