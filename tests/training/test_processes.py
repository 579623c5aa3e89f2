"""Several processes compute what one does, end together, and go on from where they were."""

import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from several import EVERYTHING, arguments, assert_close, last_step, train_alone
from workbench import ENV, REPO

from tok1d.cli import main
from tok1d.runs import TRY_AGAIN, Run
from tok1d.system.launch import free_port

IN_A_STEP = dict(
    SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="1", SLURM_LOCALID="1", SLURM_STEP_NUM_NODES="1",
    SLURM_STEP_NODELIST="a", SLURM_STEP_TASKS_PER_NODE="4", SLURM_JOB_ID="12", SLURM_STEP_ID="0",
)  # fmt: skip


def tok1d(outputs: Path, **params) -> list[str]:
    return [sys.executable, "-m", "tok1d.cli", *arguments(outputs, **params)]


def finish(command: list[str], status: int = 0) -> str:
    done = subprocess.run(command, cwd=REPO, env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return train_alone(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("two")
    print(finish(tok1d(outputs, num_processes=2)))
    return Run(outputs / "runs" / "run")


def assert_same(run: Run, other: Run) -> None:
    mine, theirs = (load_file(r / "model" / "model.safetensors") for r in (run, other))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


def test_two_processes_compute_what_one_does(one, two):
    assert {"adversarial", "adaptive_weight", "logits_real"} <= two.metrics[-1].keys()
    assert {record["num_tokens"] for record in two.metrics} == {1, 2, 4}
    assert_close(two, one)


# ---- killed, stopped, continued ----


def begin(outputs: Path, at_step: int, **params) -> tuple[psutil.Process, list[psutil.Process]]:
    """Two processes that have logged `at_step`: who started them, and they."""
    metrics = outputs / "runs" / "run" / "metrics.jsonl"
    process = psutil.Popen(
        tok1d(outputs, num_processes=2, **params), cwd=REPO, env=ENV,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= at_step):
        assert process.poll() is None
        time.sleep(0.01)
    children = [child for child in process.children() if "train" in child.cmdline()]
    assert len(children) == 2
    return process, children


def test_killed_and_orphaned_they_go_on_to_the_same_bits(one, two, tmp_path):
    outputs = tmp_path / "two"
    moments = sorted(random.sample(range(3, 40), 2))
    print(f"signalled after steps {moments}")

    process, children = begin(outputs, moments[0])
    for member in [*children, process]:
        member.kill()
    process.wait(10)

    process, children = begin(outputs, moments[1])
    process.kill()  # as a notebook's kernel that runs out of memory
    assert psutil.wait_procs(children, 30)[1] == []
    assert last_step(outputs) >= moments[1]
    shutil.copytree(outputs, tmp_path / "alone")

    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "tok1d.cli"]
    said = finish([sys.executable, *torchrun, *arguments(outputs)])
    assert said.count("continuing") == 1 and said.count("evaluates") == 1
    assert_same(Run(outputs / "runs" / "run"), two)

    assert_close(train_alone(tmp_path / "alone"), one)


def test_stopped_when_sharded_they_compute_the_same_and_one_goes_on_from_there(one, tmp_path):
    process, children = begin(tmp_path, 20, parallel="fsdp")
    process.terminate()
    assert process.wait(30) == TRY_AGAIN and not any(child.is_running() for child in children)
    assert 20 <= last_step(tmp_path) < EVERYTHING["steps"]
    shutil.copytree(tmp_path, tmp_path / "alone")
    said = finish(tok1d(tmp_path, num_processes=2, parallel="fsdp"))
    assert "continuing" in said and "Warning" not in said
    assert_close(Run(tmp_path / "runs" / "run"), one)
    assert_close(train_alone(tmp_path / "alone"), one)


# ---- what can be wrong ----


def test_a_batch_that_does_not_divide_is_one_sentence(tmp_path, capsys):
    assert main(arguments(tmp_path, num_processes=2, batch_size=6)) == 1
    assert capsys.readouterr().err == (
        "tok1d: batch_size=6 is no multiple of grad_accum_steps=2 × 2 processes: type batch_size=8\n"
    )


def test_when_one_fails_all_end_and_it_is_said_once(tmp_path):
    (tmp_path / "runs" / "run" / "metrics.jsonl" / "in the way").mkdir(
        parents=True
    )  # the main one's to write
    said = finish(tok1d(tmp_path, num_processes=2), status=1)
    assert said.count("tok1d:") == 1 and "metrics.jsonl cannot be used (is a directory)" in said
    assert "Traceback" not in said
    said = finish(tok1d(tmp_path, num_processes=2, data=tmp_path / "nowhere", run="other"), status=1)
    assert said.count("tok1d:") == 1 and "nowhere" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("left_over", "whom", "unset"),
    [
        (dict(RANK="0", WORLD_SIZE="4", MASTER_ADDR="127.0.0.1"), "RANK=1, 2, 3;", "'unset RANK WORLD_SIZE'"),
        (IN_A_STEP, "RANK=0, 2, 3;", "'unset RANK WORLD_SIZE SLURM_STEP_NUM_TASKS'"),
    ],
)
def test_left_over_variables_are_named_while_the_others_are_waited_for(left_over, whom, unset, tmp_path):
    env = ENV | left_over | {"MASTER_PORT": str(free_port())}
    process = subprocess.Popen(tok1d(tmp_path), cwd=REPO, env=env, stderr=subprocess.PIPE, text=True)
    try:
        while "waits" not in (line := process.stderr.readline()):
            assert line, "it has ended"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert f"127.0.0.1:{env['MASTER_PORT']} for {whom}" in line and unset in line


def test_empty_variables_and_those_of_other_launchers_are_no_processes(tmp_path):
    env = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS", "MASTER_PORT"), "")
    env |= {"OMPI_COMM_WORLD_SIZE": "4", "SLURM_PROCID": "0"}
    few = dict(steps=2, discriminator_start=1)
    done = subprocess.run(
        tok1d(tmp_path, **few), cwd=REPO, env=ENV | env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0 and last_step(tmp_path) == 2, done.stderr


def test_what_never_comes_is_one_sentence(tmp_path):
    """As when the port is that of something else."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = ENV | dict(
            RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(taken.getsockname()[1])
        )
        done = subprocess.run(tok1d(tmp_path), cwd=REPO, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "in vain" in done.stderr and "'unset RANK WORLD_SIZE'" in done.stderr
