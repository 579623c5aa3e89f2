"""Several processes that train one model: what their launcher says of them, and starting them here."""

from __future__ import annotations

import errno
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO

from tok1d.system.processes import FOLLOWS, GRACE, TRY_AGAIN

AFTER_FAILURE = 5.0  # seconds for the others once a process has failed: they may be waiting for it

# ---- what a launcher's variables say ----


def launched() -> bool:
    """Whether a launcher (torchrun, accelerate, srun, `tok1d.training.launch`) started several of us, or its
    variables are left over in this shell.
    """
    return bool(os.environ.get("RANK")) and number(os.environ.get("WORLD_SIZE")) > 1


def number(text: str | None) -> int:
    """A variable of the environment as a number; 1 if it is empty, unset, or none."""
    return int(text) if text and text.isdecimal() else 1


OF_A_TASK = (
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_ID",
    "SLURM_STEP_ID",
)  # fmt: skip


def slurm_variables(env: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would set, for a task of an srun with several; empty elsewhere, and under torchrun."""
    if number(env.get("SLURM_STEP_NUM_TASKS")) == 1 or env.get("RANK") or not all(map(env.get, OF_A_TASK)):
        return {}
    node = "127.0.0.1" if env.get("SLURM_STEP_NUM_NODES") == "1" else first_node(env["SLURM_STEP_NODELIST"])
    return {
        "RANK": env["SLURM_PROCID"],
        "LOCAL_RANK": env["SLURM_LOCALID"],
        "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
        "LOCAL_WORLD_SIZE": env["SLURM_STEP_TASKS_PER_NODE"].split("(")[0].split(",")[0],
        "MASTER_ADDR": env.get("MASTER_ADDR") or node,
        "MASTER_PORT": env.get("MASTER_PORT") or str(port(env)),
    }


def first_node(nodes: str) -> str:
    """`gpu[07-09,12],login2` -> `gpu07`: the first name of Slurm's short form of a list."""
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", nodes).split(",")[0]


def port(env: Mapping[str, str]) -> int:
    """The same in all tasks of a job's step, another in the steps beside it; below what systems hand out."""
    return 15_000 + (int(env["SLURM_JOB_ID"]) * 101 + int(env["SLURM_STEP_ID"])) % 15_000


# ---- starting them ----


def run_processes(
    arguments: list[str],
    count: int,
    stop: list,
    look: Callable[[], None] = lambda: None,
    out: IO[str] | None = None,
    variables: dict[str, str] | None = None,
) -> int:
    """Run `tok1d` with `arguments` in `count` processes that train one model; returns an exit status.

    They end when `stop` is no longer empty, when one of them fails, and with this process, however it ends:
    their standard input is a pipe that closes then. `look` is called a few times a second.
    """
    threads = str(max(1, (os.cpu_count() or 1) // count))
    env = {"OMP_NUM_THREADS": threads} | os.environ | (variables or {})
    env |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), FOLLOWS: "1"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "tok1d.cli", *arguments]
    theirs, ours = os.pipe()
    workers: list[subprocess.Popen] = []
    try:
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            workers.append(subprocess.Popen(command, env=env | own, stdin=theirs, stdout=out, stderr=out))
        return wait(workers, stop, look)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        os.close(ours)
        os.close(theirs)


def wait(workers: list[subprocess.Popen], stop: list, look: Callable[[], None]) -> int:
    """Until all have ended: the exit status of the first that failed, or of the main one."""
    failed, deadline = 0, float("inf")
    while any(worker.poll() is None for worker in workers):
        look()
        ended = [worker.returncode for worker in workers if worker.returncode]
        if (stop or ended) and deadline == float("inf"):
            deadline = time.monotonic() + (GRACE if not ended or ended[0] == TRY_AGAIN else AFTER_FAILURE)
            failed = ended[0] if ended else 0
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
        if time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)
    return failed or next((worker.returncode for worker in workers if worker.returncode), 0)


def free_port() -> int:
    """A port that nobody listens at, and that no system hands out before it is listened at, seconds later:
    those begin at 32,768. Raises `OSError`.
    """
    while True:
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", 15_000 + secrets.randbelow(15_000)))
                return listener.getsockname()[1]
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
