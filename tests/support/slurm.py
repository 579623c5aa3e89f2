"""A real Slurm of one node, for tests: its own daemons in a temporary folder, beside any other Slurm here."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tok1d.system.launch import free_port

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 CoresPerSocket=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no Slurm here; empty if there can."""
    absent = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not which(name)]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "needs root, for Slurm's daemons"


def which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Yields the environment in which sbatch, srun and scancel find it."""
    folder.mkdir()
    controller, node = free_port(), free_port()
    host = socket.gethostname().split(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, host=host, controller=controller, node=node))
    env = os.environ | {"SLURM_CONF": str(conf)}
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o400)
    own = ["key", "socket", "pid", "seed", "log"]
    files = [f"--{kind}-file={folder}/munge.{kind}" for kind in own if kind != "socket"]
    daemons = []
    try:
        for command in (
            ["munged", "-F", "--force", f"--socket={folder}/munge.socket", *files],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            with open(folder / f"{command[0]}.out", "w") as out:
                command[0] = which(command[0])
                daemons.append(subprocess.Popen(command, env=env, stdout=out, stderr=out))
            time.sleep(0.5)
        deadline = time.monotonic() + 30
        while "idle" not in ask(["sinfo", "-h", "-o", "%T"], env):
            assert time.monotonic() < deadline, "".join(f.read_text() for f in folder.glob("*.out"))
            time.sleep(0.2)
        yield env
    finally:
        ask(["scancel", "--user=root", "--signal=KILL"], env)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(20)


def ask(command: list[str], env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60).stdout
