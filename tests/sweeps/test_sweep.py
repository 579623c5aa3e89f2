"""Sweeps through Parsl, for real: every run on its own device, and whatever is killed, nothing is lost."""

import itertools
import json
import signal
import subprocess

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


def test_each_run_has_its_device_and_again_there_is_nothing_to_do(tmp_path):
    file = sweep_file(tmp_path, seeds=[0, 1, 2], after_sweep=["ablation"])
    said = finish(file)
    runs = [run_of(file, f"s{seed}") for seed in range(3)]
    status = [json.loads((run / "status.json").read_text()) for run in runs]
    assert {s["gpu"] for s in status} == {"5", "7"} and {s["state"] for s in status} == {"done"}
    spans = sorted((s["gpu"], s["started"], s["ended"]) for s in status)
    for (gpu, _, end), (other, begin, _) in itertools.pairwise(spans):
        assert gpu != other or end <= begin  # one at a time
    assert "3 of 3 runs are finished" in said and (tmp_path / "outputs/tiny/ablation.ipynb").exists()
    lines = (tmp_path / "outputs/tiny/results.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 + 3 * 3 and ",seed," in lines[0]  # the linear code's, then those of three runs
    before = {run.name: (run / "done.json").stat().st_mtime_ns for run in runs}
    assert "nothing to do" in finish(file)
    assert "was started with steps=12, not 13: type another run" in refused(file, "-p", "steps=13")
    assert before == {run.name: (run / "done.json").stat().st_mtime_ns for run in runs}


def test_a_notebook_cell_runs_a_sweep_under_one_live_table(tmp_path):
    file, notebook = sweep_file(tmp_path), nbformat.v4.new_notebook()
    source = (
        "from tok1d.sweeps.run import run_sweep\nfrom tok1d.sweeps.plan import read_plan\n"
        f"plan = read_plan({str(file)!r}, {{'steps': 40}}, outputs={str(tmp_path / 'outputs')!r})\n"
        "run_sweep(plan)"
    )
    notebook.cells = [nbformat.v4.new_code_cell(source)]
    env = SLOTS | {"TOK1D_HEADLESS": "0"}
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(REPO)}}).execute(env=env)
    outputs = notebook.cells[0].outputs
    tables = [out["data"]["text/markdown"] for out in outputs if "text/markdown" in out.get("data", {})]
    (table,) = tables
    assert "| run | done | 40 / 40 |" in table and "images/s" in table
    assert "1 of 1 runs are finished" in "".join(out.get("text", "") for out in outputs)


def test_a_killed_kernel_a_run_that_raises_one_over_its_limit_and_one_that_hangs(tmp_path):
    slow, hangs = ({"steps": 100_000, "run": name} for name in ("over", "hangs"))
    sick = {"run": "sick", "lr": 1, "l2_weight": 1e30, "grad_clip": 1e30, "stop_on": "nan", "nan_patience": 1}
    file = sweep_file(tmp_path, cells=[{"run": "killed", "steps": 60}, hangs, slow, sick], limit=35, grace=8)
    driver = start(file)
    killed, hanging = run_of(file, "killed"), run_of(file, "hangs")
    for run, number in ((killed, signal.SIGKILL), (hanging, signal.SIGSTOP)):
        until(lambda run=run: steps_of(run) > 4)
        (kernel,) = processes("ipykernel_launcher", run=run.name)
        kernel.send_signal(number)
    assert driver.wait(300) == 1
    assert not kernel.is_running()
    failed = json.loads((tmp_path / "outputs/tiny/failed.json").read_text())
    assert set(failed) == {"sick", "over", "hangs"} and killed.done and len(killed.metrics) == 30
    assert failed["sick"]["why"].startswith("nan") and failed["sick"]["last"]
    for name in ("over", "hangs"):
        assert "over its limit of 35" in failed[name]["why"] and (run_of(file, name) / "last.ckpt").exists()
    assert not (hanging / "sweep.log").read_text().count("continuing")
    log = (killed / "sweep.log").read_text()
    assert log.count("lost its kernel") == 1 and log.count("continuing") == 1


def test_pool_and_driver_killed_the_same_command_finishes_and_nothing_is_run_twice(tmp_path):
    long = {"steps": 240}
    file = sweep_file(tmp_path, cells=[{"run": "a"}, {"run": "b"} | long, {"run": "c"} | long])
    a, b = run_of(file, "a"), run_of(file, "b")
    driver = start(file)
    until((tmp_path / "outputs/tiny/driver.txt").exists)
    second = subprocess.run(command(file), cwd=REPO, env=SLOTS, capture_output=True, text=True)
    assert second.returncode == 1 and second.stderr.count("\n") == 1
    assert f"is being run by process {driver.pid} on" in second.stderr

    until(lambda: a.done and steps_of(b) > 10)
    finished = (a / "done.json").stat().st_mtime_ns
    for pool in processes("process_worker_pool", str(tmp_path)):
        pool.kill()
    until(lambda: (b / "sweep.log").read_text().count("continuing") == 1)

    at = steps_of(b)
    until(lambda: steps_of(b) > at)
    left = processes("process_worker_pool", str(tmp_path)) + driver.children()
    driver.kill()
    driver.wait()
    said = finish(file)
    assert "3 of 3 runs are finished" in said and len(left) >= 2 and not any(p.is_running() for p in left)
    assert (a / "done.json").stat().st_mtime_ns == finished
    for run in (b, run_of(file, "c")):
        assert [record["step"] for record in run.metrics] == list(range(2, 241, 2))
