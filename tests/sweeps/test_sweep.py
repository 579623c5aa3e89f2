"""Sweeps through Parsl, for real: every run on its own device, and whatever is killed, nothing is lost."""

import itertools
import json
import os
import signal
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from sweeping import SLOTS, command, finish, processes, refused, run_of, start, steps_of, sweep_file, until
from workbench import REPO


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path):
    yield
    for process in processes(str(tmp_path)):
        process.kill()


def test_in_a_notebook_cell_each_run_has_its_device_and_again_there_is_nothing_to_do(tmp_path):
    file = sweep_file(tmp_path, seeds=[0, 1, 2], after_sweep=["ablation"])
    said, table = run_in_a_cell(file)
    runs = [run_of(file, f"s{seed}") for seed in range(3)]
    status = [json.loads((run / "status.json").read_text()) for run in runs]
    assert {s["gpu"] for s in status} == {"5", "7"} and {s["state"] for s in status} == {"done"}
    spans = sorted((s["gpu"], s["started"], s["ended"]) for s in status)
    for (gpu, _, end), (other, begin, _) in itertools.pairwise(spans):
        assert gpu != other or end <= begin  # one at a time
    assert "3 of 3 runs are finished" in said and (tmp_path / "outputs/tiny/ablation.ipynb").exists()
    assert all(f"| s{seed} | done | 12 / 12 |" in table for seed in range(3)) and "images/s" in table
    lines = (tmp_path / "outputs/tiny/results.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 + 3 * 3 and ",seed," in lines[0]  # the linear code's, then those of three runs
    before = {run.name: (run / "done.json").stat().st_mtime_ns for run in runs}
    assert "nothing to do" in finish(file)
    assert "was started with steps=12, not 13: type another run" in refused(file, "-p", "steps=13")
    assert before == {run.name: (run / "done.json").stat().st_mtime_ns for run in runs}


def run_in_a_cell(file: Path) -> tuple[str, str]:
    """The sweep in the cell of a notebook that somebody watches: what it prints, and its one live table."""
    notebook = nbformat.v4.new_notebook()
    source = (
        "from tok1d.sweeps.run import run_sweep\nfrom tok1d.sweeps.plan import read_plan\n"
        f"run_sweep(read_plan({str(file)!r}, outputs={str(file.parent / 'outputs')!r}))"
    )
    notebook.cells = [nbformat.v4.new_code_cell(source)]
    env = SLOTS | {"TOK1D_HEADLESS": "0"}
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(REPO)}}).execute(env=env)
    outputs = notebook.cells[0].outputs
    (table,) = [out["data"]["text/markdown"] for out in outputs if "text/markdown" in out.get("data", {})]
    return "".join(out.get("text", "") for out in outputs), table


def test_a_killed_kernel_a_run_that_raises_and_one_that_hangs(tmp_path):
    sick = {"run": "sick", "lr": 1, "l2_weight": 1e30, "grad_clip": 1e30, "stop_on": "nan", "nan_patience": 1}
    cells = [{"run": "killed", "steps": 60}, {"run": "hangs", "steps": 100_000}, sick]
    file = sweep_file(tmp_path, cells=cells, limit=35, grace=4)
    driver = start(file)
    killed, hanging = run_of(file, "killed"), run_of(file, "hangs")
    for run, number in ((killed, signal.SIGKILL), (hanging, signal.SIGSTOP)):
        until(lambda run=run: steps_of(run) > 4)
        (kernel,) = processes("ipykernel_launcher", run=run.name)
        kernel.send_signal(number)
    assert driver.wait(300) == 1
    assert not kernel.is_running()
    failed = json.loads((tmp_path / "outputs/tiny/failed.json").read_text())
    assert set(failed) == {"sick", "hangs"} and killed.done and len(killed.metrics) == 30
    assert failed["sick"]["why"].startswith("nan") and failed["sick"]["last"]
    assert "over its limit of 35" in failed["hangs"]["why"] and (hanging / "last.ckpt").exists()
    assert not (hanging / "sweep.log").read_text().count("continuing")
    log = (killed / "sweep.log").read_text()
    assert log.count("lost its kernel") == 1 and log.count("continuing") == 1


def test_pool_and_driver_killed_the_same_command_finishes_and_nothing_is_run_twice(tmp_path, monkeypatch):
    """Of which one is finished, one is running, and one waits."""
    monkeypatch.setitem(SLOTS, "TOK1D_GPUS", "5")
    file = sweep_file(tmp_path, cells=[{"run": "a"}, {"run": "b", "steps": 240}, {"run": "c"}])
    a, b, c = (run_of(file, name) for name in "abc")
    driver = start(file)
    until((tmp_path / "outputs/tiny/driver.txt").exists)
    second = subprocess.run(command(file), cwd=REPO, env=SLOTS, capture_output=True, text=True)
    assert second.returncode == 1 and second.stderr.count("\n") == 1
    assert f"is being run by process {driver.pid} on" in second.stderr

    until(lambda: a.done and steps_of(b) > 10)
    finished = (a / "done.json").stat().st_mtime_ns
    pools = processes("process_worker_pool", str(tmp_path))
    helpers = [process for pool in pools for process in pool.children(recursive=True)]
    helpers = [process for process in helpers if "multiprocessing" in " ".join(process.cmdline())]
    for pool in pools:
        pool.kill()
    until(lambda: (b / "sweep.log").read_text().count("continuing") == 1)
    assert len(helpers) > 2  # worker, manager, and the tracker of what they share
    until(lambda: not any(process.is_running() for process in helpers), 30)

    at = steps_of(b)
    until(lambda: steps_of(b) > at)
    left = processes("process_worker_pool", str(tmp_path)) + driver.children()
    driver.kill()
    driver.wait()
    said = finish(file)
    assert "3 of 3 runs are finished" in said and len(left) >= 2 and not any(p.is_running() for p in left)
    assert (a / "done.json").stat().st_mtime_ns == finished
    for run, steps in ((b, 240), (c, 12)):
        assert [record["step"] for record in run.metrics] == list(range(2, steps + 1, 2))


def test_ctrl_c_stops_all_with_checkpoints_in_one_line(tmp_path):
    """From a terminal, whose every process hears it: also Parsl's interchange, which the driver waits for."""
    file = sweep_file(tmp_path, cells=[{"run": "a", "steps": 100_000, "checkpoint_every": 100_000}])
    a = run_of(file, "a")
    driver = start(file, process_group=0)
    until(lambda: steps_of(a) > 4)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(60) == 130
    until(lambda: (a / "last.ckpt").exists() and not processes(str(tmp_path)))
    said = (tmp_path / "driver.log").read_text()
    assert said.endswith("tok1d: stopped; the same command continues\n") and "Traceback" not in said
