"""A sweep whose disk is really full for a while: a run fails with a sentence, and nothing is lost."""

import json

import torch
from evaluating import FAST, finished_run
from full_disk import small_disk
from sweeping import RUN, finish, start, steps_of, sweep_file, until

from tok1d.evaluation.runs import evaluate_run
from tok1d.runs import Run


def test_a_full_disk_stops_what_is_running_and_the_same_command_completes_it(tmp_path):
    file = sweep_file(tmp_path, cells=[{"run": "a"}, {"run": "b", "steps": 200}])
    with small_disk(tmp_path / "outputs", 60) as disk:
        a, b = finished_run(disk.outside, "a", sweep="tiny", **RUN), Run(disk.outside / "tiny" / "b")
        evaluate_run(a, FAST)
        driver = start(file, disk.enter)
        until(lambda: steps_of(b) > 10)
        finished = {path: path.read_bytes() for path in a.path.rglob("*") if path.is_file()}
        filler = disk.fill()
        assert driver.wait(120) == 1
        said = (tmp_path / "driver.log").read_text()
        assert "b: the disk is full: make room" in said and "Traceback" not in said
        assert finished == {path: path.read_bytes() for path in finished}
        assert_no_half_files(disk.outside)
        assert torch.load(b / "last.ckpt", weights_only=True)["counts"]["step"] > 0 and not b.done

        filler.unlink()
        assert "2 of 2 runs are finished" in finish(file, disk.enter)
        assert finished == {path: path.read_bytes() for path in finished}
        assert [record["step"] for record in b.metrics] == list(range(2, 201, 2))
        assert (b / "sweep.log").read_text().count("continuing") == 1


def assert_no_half_files(folder):
    for path in folder.rglob("*"):
        assert not path.name.endswith(".tmp")
        if path.suffix in (".json", ".ipynb"):
            json.loads(path.read_text())
