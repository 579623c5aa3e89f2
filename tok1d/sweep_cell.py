"""One run of a sweep, as a worker carries it out: its notebooks one after the other, each a `tok1d run`.

A worker writes `status.json` into the run folder, and renews its time while it works. Only one worker at a
time has the folder: the lock goes with the processes that it started, however it ends, and those end with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tok1d.following import FOLLOWS, GRACE
from tok1d.runs import TRY_AGAIN, Run, replacing

STATUS = "status.json"
BEAT = 5.0  # seconds between signs of life
WAIT = 2 * GRACE  # seconds that what another worker left behind may take to end


class CellFailed(RuntimeError):
    """A run that did not finish, and why. `again`: nothing is wrong with it, it was killed."""

    def __init__(self, why: str, again: bool = False):
        super().__init__(why, again)
        self.why, self.again = why, again

    def __str__(self) -> str:
        return self.why


def run_cell(folder: str, project: str, after: tuple[str, ...], limit: float = 0) -> None:
    """Train the run that `folder`/cell.yaml describes, then execute the notebooks `after`; from the folder
    `project`. What is there already is not done again. Raises `CellFailed`.
    """
    run = Run(folder)
    with held(run) as lock, alive(run):
        params = ["-f", str(run / "cell.yaml")]
        done = [] if (run / "done.json").exists() else [("train", params)]
        where = ["-p", f"outputs={run.path.parent.parent}", "-p", f"sweep={run.path.parent.name}"]
        done += [(name, [*where, "-p", f"run={run.name}"]) for name in left(run, after)]
        for name, arguments in done:
            execute(run, project, name, arguments, limit, lock)


def left(run: Run, after: tuple[str, ...]) -> list[str]:
    """Of the notebooks `after`, those that have not been executed since the run was finished."""
    done = run / "done.json"
    since = done.stat().st_mtime if done.exists() else float("inf")
    executed = [run / f"{name}.ipynb" for name in after]
    return [path.stem for path in executed if not path.exists() or path.stat().st_mtime < since]


def execute(run: Run, project: str, name: str, arguments: list[str], limit: float, lock: int) -> None:
    command = [sys.executable, "-m", "tok1d.cli", "run", f"notebooks/{name}.ipynb", *arguments]
    command += ["--limit", str(limit)] if limit else []
    with open(run / "sweep.log", "ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            command, cwd=project, env=os.environ | {FOLLOWS: "1"}, stdin=subprocess.PIPE,
            stdout=log, stderr=log, pass_fds=[lock], start_new_session=True,
        )  # fmt: skip
        try:
            attended(process, limit + 2 * GRACE if limit else float("inf"))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        said = (run / "sweep.log").read_bytes()[start:].decode(errors="replace").strip().splitlines()
        why = next((line for line in reversed(said) if line.startswith("tok1d: ")), "")
        why = why.removeprefix("tok1d: ") or f"{name} ended with status {process.returncode}"
        raise CellFailed(why, again=process.returncode == TRY_AGAIN or process.returncode < 0)


def attended(process: subprocess.Popen, limit: float) -> None:
    """Wait until `process` ends, for `limit` seconds; stop it, with a checkpoint, when the pool that this
    worker belongs to is killed: another worker will have been given its run. Raises `CellFailed` then.
    """
    pool, deadline = os.getppid(), time.monotonic() + limit
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
            return
        if os.getppid() != pool:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            raise CellFailed("its worker pool was killed", again=True)


@contextlib.contextmanager
def held(run: Run) -> Iterator[int]:
    """Have the folder alone. Raises `CellFailed` if another worker keeps it for longer than `WAIT`."""
    deadline = time.monotonic() + WAIT
    with open(run / ".cell.lock", "w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CellFailed(
                        f"another process has {run.path}: is the sweep running elsewhere?"
                    ) from None
                time.sleep(0.2)
        yield handle.fileno()


@contextlib.contextmanager
def alive(run: Run) -> Iterator[None]:
    """Keep `status.json`: running with a sign of life, then done, or failed and why."""
    facts = {
        "host": socket.gethostname(), "pid": os.getpid(), "started": time.time(),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }  # fmt: skip
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(run / STATUS)

    write_status(run, facts | {"state": "running"})
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    except CellFailed as failure:
        ended.set()
        write_status(run, facts | {"state": "failed", "why": failure.why, "again": failure.again})
        raise
    finally:
        ended.set()
    write_status(run, facts | {"state": "done", "ended": time.time()})


def write_status(run: Run, status: dict) -> None:
    with (
        contextlib.suppress(OSError),
        replacing(run / STATUS) as temporary,
    ):  # on a full disk: it is not vital
        Path(temporary).write_text(json.dumps(status) + "\n")
