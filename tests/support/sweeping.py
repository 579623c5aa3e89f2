"""Sweeps of tiny runs for tests: started, looked at, and their processes found."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import yaml
from workbench import ENV, REPO, TINY

from tok1d.runs import Run

RUN = TINY | {"checkpoint_every": 20}
SLOTS = ENV | {"TOK1D_GPUS": "5,7"}


def sweep_file(folder: Path, **values) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(
        yaml.safe_dump({"params": RUN, "after_run": [], "after_sweep": []} | values, sort_keys=False)
    )
    return file


def command(file: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "tok1d.cli", "sweep", str(file), "-o", str(file.parent / "outputs"), *more]


def start(file: Path, enter: Sequence[str] = (), **how) -> psutil.Popen:
    """The sweep's driver, its words in `driver.log`; `enter` stands before its command, started `how`."""
    log = open(file.parent / "driver.log", "a")  # noqa: SIM115
    return psutil.Popen([*enter, *command(file)], cwd=REPO, env=SLOTS, stdout=log, stderr=log, **how)


def finish(file: Path, enter: Sequence[str] = ()) -> str:
    """The sweep to its end, which is a good one; returns what it says."""
    words = [*enter, *command(file)]
    done = subprocess.run(words, cwd=REPO, env=SLOTS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def refused(file: Path, *more: str) -> str:
    """The sentence that a sweep is refused with."""
    done = subprocess.run(command(file, *more), cwd=REPO, env=SLOTS, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stdout + done.stderr
    return done.stderr


def until(condition, seconds: float = 120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def run_of(file: Path, name: str) -> Run:
    return Run(file.parent / "outputs" / "tiny" / name)


def steps_of(run: Run) -> int:
    return len(run.metrics_until(10**9))


def processes(*words: str, run: str = "") -> list[psutil.Process]:
    """Those whose command has all of `words`, and with `run` those below the runner of that run."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            family = [" ".join(parent.cmdline()) for parent in process.parents()] if run else []
        except psutil.Error:
            continue
        if all(word in line for word in words) and (
            not run or any(f"/{run}/cell.yaml" in each for each in family)
        ):
            found.append(process)
    return found
