"""Sweeps through Parsl, for real: every run on its own device, and whatever is killed, nothing is lost."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from workbench import ENV, REPO, TINY

from tok1d.runs import Run

RUN = {name: value for name, value in TINY.items() if name != "checkpoint_every"} | {"checkpoint_every": 3}
SLOTS = ENV | {"TOK1D_GPUS": "5,7"}


def sweep_file(folder: Path, **values) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(
        yaml.safe_dump({"params": RUN, "after_run": [], "after_sweep": []} | values, sort_keys=False)
    )
    return file


def command(file: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "tok1d.cli", "sweep", str(file), "-o", str(file.parent / "outputs"), *more]


def start(file: Path, **env: str) -> psutil.Popen:
    log = open(file.parent / "driver.log", "a")  # noqa: SIM115
    return psutil.Popen(command(file), cwd=REPO, env=SLOTS | env, stdout=log, stderr=log)


def finish(file: Path, status: int = 0) -> str:
    done = subprocess.run(command(file), cwd=REPO, env=SLOTS, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


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


def processes(word: str, run: str = "") -> list[psutil.Process]:
    """Those of this test's whose command has `word`, and with `run` those below the runner of that run."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            family = [" ".join(parent.cmdline()) for parent in process.parents()] if run else []
        except psutil.Error:
            continue
        if word in line and (not run or any(f"/{run}/cell.yaml" in each for each in family)):
            found.append(process)
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path):
    yield
    for process in processes(str(tmp_path)):
        process.kill()


def test_each_run_has_its_device_and_again_there_is_nothing_to_do(tmp_path):
    file = sweep_file(tmp_path, seeds=[0, 1, 2], after_run=["reconstruct"], after_sweep=["ablation"])
    said = finish(file)
    runs = [run_of(file, f"s{seed}") for seed in range(3)]
    status = [json.loads((run / "status.json").read_text()) for run in runs]
    assert {s["gpu"] for s in status} == {"5", "7"} and {s["state"] for s in status} == {"done"}
    spans = sorted((s["gpu"], s["started"], s["ended"]) for s in status)
    for (gpu, _, end), (other, begin, _) in itertools.pairwise(spans):
        assert gpu != other or end <= begin  # one at a time
    assert "3 of 3 runs are finished" in said and (tmp_path / "outputs/tiny/ablation.ipynb").exists()
    lines = (tmp_path / "outputs/tiny/results.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 3 and ",seed," in lines[0]
    before = {run.name: (run / "done.json").stat().st_mtime_ns for run in runs}
    assert "nothing to do" in finish(file)
    assert before == {run.name: (run / "done.json").stat().st_mtime_ns for run in runs}


def test_a_killed_kernel_a_run_that_raises_and_one_over_its_limit(tmp_path):
    slow = {"steps": 100_000, "run": "over"}
    sick = {"run": "sick", "lr": 1, "l2_weight": 1e30, "grad_clip": 1e30, "stop_on": "nan", "nan_patience": 1}
    file = sweep_file(tmp_path, cells=[{"run": "killed", "steps": 120}, sick, slow], limit=40)
    driver = start(file)
    killed = run_of(file, "killed")
    until(lambda: steps_of(killed) > 4)
    (kernel,) = processes("ipykernel_launcher", "killed")
    kernel.kill()
    assert driver.wait(300) == 1
    failed = json.loads((tmp_path / "outputs/tiny/failed.json").read_text())
    assert set(failed) == {"sick", "over"} and killed.done and len(killed.metrics) == 60
    assert failed["sick"]["why"].startswith("nan") and "over its limit of 40" in failed["over"]["why"]
    assert failed["sick"]["last"] and (run_of(file, "over") / "last.ckpt").exists()
    log = (killed / "sweep.log").read_text()
    assert log.count("lost its kernel") == 1 and log.count("continuing") == 1


@pytest.mark.slow
def test_pool_and_driver_killed_the_same_command_finishes_and_nothing_is_run_twice(tmp_path):
    long = {"steps": 600}
    file = sweep_file(tmp_path, cells=[{"run": "a"}, {"run": "b"} | long, {"run": "c"} | long])
    a, b = run_of(file, "a"), run_of(file, "b")
    driver = start(file)
    until((tmp_path / "outputs/tiny/driver.txt").exists)
    second = subprocess.run(command(file), cwd=REPO, env=SLOTS, capture_output=True, text=True)
    assert second.returncode == 1 and second.stderr.count("\n") == 1
    assert f"is being run by process {driver.pid} on" in second.stderr

    until(lambda: a.done and steps_of(b) > 10)
    finished = (a / "done.json").stat().st_mtime_ns
    for pool in processes("process_worker_pool"):
        pool.kill()
    until(lambda: (b / "sweep.log").read_text().count("continuing") == 1)

    at = steps_of(b)
    until(lambda: steps_of(b) > at)
    driver.kill()
    driver.wait()
    said = finish(file)
    assert "3 of 3 runs are finished" in said
    assert (a / "done.json").stat().st_mtime_ns == finished
    for run in (b, run_of(file, "c")):
        assert [record["step"] for record in run.metrics] == list(range(2, 601, 2))
