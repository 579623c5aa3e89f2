"""Training as the tasks of a real Slurm job on a node of our own: same numbers, stopped and continued."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm
from several import EVERYTHING, arguments, assert_close, last_step, train_alone
from workbench import ENV, REPO

from tok1d.runs import Run
from tok1d.system.launch import first_node, slurm_variables

needs_slurm = pytest.mark.skipif(bool(slurm.missing()) and "CI" not in os.environ, reason=slurm.missing())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.slurm(tmp_path_factory.mktemp("slurm") / "daemons") as env:
        yield env | ENV | {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "PYTHONPATH": str(REPO)}


def submit(env: dict[str, str], outputs: Path) -> str:
    """The shipped script, with two tasks on one node without GPUs; returns the job's number."""
    size = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1"]
    log = f"--output={outputs}/job.log"
    job = ["sbatch", "--parsable", *size, log, "params/train.sbatch", *arguments(outputs)[1:]]
    said = subprocess.run(job, cwd=REPO, env=env, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def wait_for(what, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "the job wrote nothing"
        time.sleep(0.1)


@needs_slurm
def test_two_tasks_stopped_and_queued_again_compute_what_one_process_does(cluster, tmp_path):
    outputs = tmp_path / "two"
    outputs.mkdir()
    run, log = Run(outputs / "runs" / "run"), outputs / "job.log"
    job = submit(cluster, outputs)
    wait_for(lambda: len(run.metrics) >= 10, log)
    slurm.ask(["scancel", "--signal=TERM", job], cluster)  # as --signal and preemption do
    stopped = time.monotonic()
    wait_for(lambda: "Restarts=1" in slurm.ask(["scontrol", "show", "job", job], cluster), log)
    assert time.monotonic() - stopped < 30  # what Slurm grants between SIGTERM and SIGKILL
    step = last_step(outputs)
    assert 10 <= step < EVERYTHING["steps"] and f"stopped at step {step}" in log.read_text()
    wait_for(lambda: "JobState=PENDING" in slurm.ask(["scontrol", "show", "job", job], cluster), log)
    time.sleep(5)  # a node refuses a job that starts in the second in which it was ended: "already killed"
    slurm.ask(["scontrol", "update", f"jobid={job}", "starttime=now"], cluster)
    wait_for(lambda: (run / "model" / "config.json").exists(), log)
    assert f"continuing {run.path} from step {step}" in log.read_text()
    assert_close(run, train_alone(tmp_path / "one"))


def test_what_a_task_of_srun_sets(monkeypatch):
    """The variables as Slurm 22.05 set them in the second task on the second of two nodes."""
    env = dict(
        SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="3", SLURM_LOCALID="1", SLURM_STEP_NUM_NODES="2",
        SLURM_STEP_NODELIST="gpu[07-08]", SLURM_STEP_TASKS_PER_NODE="2(x2)", SLURM_JOB_ID="12",
        SLURM_STEP_ID="0",
    )  # fmt: skip
    got = slurm_variables(env)
    assert 1024 < int(got.pop("MASTER_PORT")) < 32768
    assert got == dict(RANK="3", WORLD_SIZE="4", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2", MASTER_ADDR="gpu07")
    assert slurm_variables(env | {"RANK": "0"}) == {}  # torchrun inside of srun
    assert slurm_variables({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "12"}) == {}  # no srun
    assert [first_node(nodes) for nodes in ("a1", "a[1,3],b2", "r[1-2]n[3-4]", "x,y")] == [
        "a1",
        "a1",
        "r1n3",
        "x",
    ]
