"""A sweep as jobs of a real Slurm, through Parsl's SlurmProvider; one of its jobs is cancelled on the way."""

import os
import subprocess
import sys

import pytest
from slurm import ask, missing, slurm
from sweeping import command, run_of, steps_of, sweep_file, until
from workbench import CI, ENV, REPO

SITE = """
from parsl import Config, HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import SlurmProvider

class Slurm(SlurmProvider):
    status_polling_interval = 2  # seconds, not 60: on a busy cluster that would be rude


config = Config(
    executors=[
        HighThroughputExecutor(
            available_accelerators=["5", "7"],
            max_workers_per_node=2,
            cores_per_worker=1e-3,
            address="127.0.0.1",
            heartbeat_period=2,
            heartbeat_threshold=10,
            block_error_handler=False,
            encrypted=False,
            provider=Slurm(
                partition="main", walltime="00:20:00", init_blocks=1, min_blocks=0, max_blocks=1,
                exclusive=False, launcher=SimpleLauncher(), worker_init="{init}",
            ),
        )
    ],
    strategy_period=1,
)
"""


def test_the_same_sweep_under_slurm_goes_on_after_scancel(tmp_path):
    if why := missing():
        assert not CI, why
        pytest.skip(why)
    site = tmp_path / "site.py"
    site.write_text(SITE.replace("{init}", f"export PATH={os.path.dirname(sys.executable)}:$PATH"))
    file = sweep_file(tmp_path, cells=[{"run": "b", "steps": 200}])
    b = run_of(file, "b")
    with slurm(tmp_path / "slurm") as env, open(tmp_path / "driver.log", "w") as log:
        env = env | ENV | {"SLURM_CONF": env["SLURM_CONF"]}
        driver = subprocess.Popen(
            command(file, "--site", str(site)), cwd=REPO, env=env, stdout=log, stderr=log
        )
        try:
            until(lambda: steps_of(b) > 10)
            (job,) = ask(["squeue", "-h", "-o", "%i"], env).split()
            ask(["scancel", job], env)
            assert driver.wait(280) == 0, (tmp_path / "driver.log").read_text()
        finally:
            driver.kill()
        jobs = list((tmp_path / "outputs/tiny/.parsl").rglob("submit_scripts/*.stdout"))
    assert len(jobs) == 2
    assert b.done
    assert [record["step"] for record in b.metrics] == list(range(2, 201, 2))
    assert (b / "sweep.log").read_text().count("continuing") == 1
