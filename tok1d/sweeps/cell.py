"""One run of a sweep, as a worker carries it out: its notebooks one after the other, each a `tok1d run`.

A worker writes `status.json` into the run folder, and renews its time while it works. Only one worker at a
time has the folder: the lock goes with the processes that it started, however it ends, and those end with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tok1d.runs import TRY_AGAIN, Run
from tok1d.sweeps.after import arguments, pending_steps
from tok1d.sweeps.plan import SweepConfig
from tok1d.system.files import is_full, no_space, replacing
from tok1d.system.processes import FOLLOWS, locked

STATUS = "status.json"
BEAT = 5.0  # seconds between signs of life
STARTING = 60.0  # seconds that `tok1d run` may take before its own limit counts


class CellFailed(RuntimeError):
    """A run that did not finish, and why. `again`: nothing is wrong with it, it was killed."""

    def __init__(self, why: str, again: bool = False):
        super().__init__(why, again)
        self.why, self.again = why, again

    def __str__(self) -> str:
        return self.why


def run_cell(folder: str, project: str, config: SweepConfig) -> None:
    """Train the run that `folder`/cell.yaml describes, then do what follows it; from the folder `project`.
    What is there already is not done again. Raises `CellFailed`.
    """
    run = Run(folder)
    try:
        with run_locked(run, 4 * config.grace) as lock, status_kept(run):
            if not (run / "done.json").exists():
                notebook = f"notebooks/{config.notebook}.ipynb"
                execute(run, project, ["run", notebook, "-f", str(run / "cell.yaml")], config, lock)
            for name in pending_steps(run, config):
                execute(run, project, arguments(run, name, config), config, lock)
    except OSError as error:
        raise (CellFailed(full(run)) if no_space(error) else error) from None


def execute(run: Run, project: str, command: list[str], config: SweepConfig, lock: int) -> None:
    """`tok1d` with these arguments, its words in `sweep.log`. Raises `CellFailed`."""
    limits = ["--limit", str(config.limit), "--grace", str(config.grace)]
    limits = limits if config.limit and command[0] == "run" else []
    with open(run / "sweep.log", "ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "tok1d.cli", *command, *limits], cwd=project,
            env=os.environ | {FOLLOWS: "1"}, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[lock],
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_or_stop(process, config)
        finally:
            kill(process)
    if process.returncode:
        said = (run / "sweep.log").read_bytes()[start:].decode(errors="replace").strip().splitlines()
        raise failure(run, " ".join(command[:2]), process.returncode, said)


def wait_or_stop(process: subprocess.Popen, config: SweepConfig) -> None:
    """Wait until `process` ends; stop it, with a checkpoint, when the pool that this worker belongs to is
    killed: another worker will have been given its run. Raises `CellFailed` then, and when it is over its
    limit and has not ended by itself.
    """
    limit = config.limit + 2 * config.grace + STARTING if config.limit else float("inf")
    pool, deadline = os.getppid(), time.monotonic() + limit
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
            return
        if os.getppid() != pool:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2 * config.grace)
            raise CellFailed("its worker pool was killed", again=True)
    raise CellFailed(f"over its limit of {config.limit} seconds, and it did not end when it was asked to")


def kill(process: subprocess.Popen) -> None:
    """End what is left of a process that was started here, and of those that it started."""
    if process.poll() is None:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def failure(run: Run, what: str, status: int, said: list[str]) -> CellFailed:
    """Why `tok1d` ended with this status, from the lines that it said."""
    if is_full(run.path):
        return CellFailed(full(run))
    why = next((line for line in reversed(said) if line.startswith("tok1d: ")), "").removeprefix("tok1d: ")
    return CellFailed(why or f"{what} ended with status {status}", again=status == TRY_AGAIN or status < 0)


def full(run: Run) -> str:
    return f"the disk is full: make room at {run.path}; the same command continues from the last checkpoint"


@contextlib.contextmanager
def run_locked(run: Run, patience: float) -> Iterator[int]:
    """Have the folder alone. Raises `CellFailed` if another worker keeps it for `patience` seconds."""
    with open(run / ".cell.lock", "w", encoding="utf-8") as handle:
        if not locked(handle, patience):
            raise CellFailed(f"another process has {run.path}: is the sweep running elsewhere?")
        yield handle.fileno()


@contextlib.contextmanager
def status_kept(run: Run) -> Iterator[None]:
    """Keep `status.json`: running with a sign of life, then done, or failed and why."""
    status = {
        "host": socket.gethostname(), "pid": os.getpid(), "started": time.time(),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }  # fmt: skip
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(run / STATUS)

    write_status(run, status | {"state": "running"})
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    except CellFailed as failure:
        ended.set()
        write_status(run, status | {"state": "failed", "why": failure.why, "again": failure.again})
        raise
    finally:
        ended.set()
    write_status(run, status | {"state": "done", "ended": time.time()})


def write_status(run: Run, status: dict) -> None:
    with (
        contextlib.suppress(OSError),
        replacing(run / STATUS) as temporary,
    ):  # on a full disk: it is not vital
        Path(temporary).write_text(json.dumps(status) + "\n", encoding="utf-8")
