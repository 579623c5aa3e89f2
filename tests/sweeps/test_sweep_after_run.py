"""What follows each run of a sweep: done once, and again only when it is asked for differently."""

import json

import pytest
from evaluating import finished_run
from workbench import REPO

from tok1d.sweeps.after import pending_steps
from tok1d.sweeps.cell import CellFailed, run_cell
from tok1d.sweeps.plan import SweepConfig

BOTH = {"after_run": ["evaluate", "reconstruct"]}


def test_a_run_is_evaluated_as_asked_then_reconstructed_and_neither_twice(tmp_path, plain):
    run, folder = finished_run(tmp_path, "a"), str(plain(4))
    asked = {"metrics": ["psnr", "ssim"], "data": folder, "resamples": 50}
    config = SweepConfig(**BOTH, evaluation=asked)
    assert pending_steps(run, config) == ["evaluate", "reconstruct"]
    run_cell(str(run.path), str(REPO), config)
    found = run.on(folder).evaluation
    assert found["card"]["images"] == 4 and found["card"]["data"] == folder
    assert {"psnr", "ssim"} <= found["results"][0].keys() and "ms_ssim" not in found["results"][0]
    assert (run / "reconstruct.ipynb").exists() and pending_steps(run, config) == []
    files = [run.on(folder).evaluated / "eval.json", run / "reconstruct.ipynb"]
    before = [file.stat().st_mtime_ns for file in files]
    run_cell(str(run.path), str(REPO), config)
    assert before == [file.stat().st_mtime_ns for file in files]

    def differently(**values):
        return pending_steps(run, SweepConfig(**BOTH, evaluation=asked | values))

    assert differently(metrics="psnr", token_counts="1,4", eval_batch_size=3) == []
    for values in ({"data": ""}, {"metrics": "psnr,lpips"}, {"eval_images": 3}, {"token_counts": [3]}):
        assert differently(**values) == ["evaluate"]


def test_an_evaluation_that_cannot_be_is_said_in_its_sentence(tmp_path):
    run = finished_run(tmp_path, "a")
    config = SweepConfig(after_run=["evaluate"], evaluation={"data": str(tmp_path / "none")})
    with pytest.raises(CellFailed, match="none") as caught:
        run_cell(str(run.path), str(REPO), config)
    assert not caught.value.again
    assert json.loads((run / "status.json").read_text())["why"] == caught.value.why
