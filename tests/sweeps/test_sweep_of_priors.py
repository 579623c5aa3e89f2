"""Priors through the runner and through `tok1d sweep`, for real."""

import subprocess
import sys

import pytest
import yaml
from priors import colored_folders, linear_tokenizer
from sweeping import finish, refused, sweep_file
from workbench import ENV, REPO

from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import configs_of
from tok1d.config.parse import parse, read_params
from tok1d.runs import Run, newest_finished
from tok1d.runs.find import find_runs
from tok1d.sweeps.plan import read_plan

SMALL = dict(
    prior_width=64, prior_depth=1, steps=12, batch_size=6, warmup_steps=2, prior_tokens=3, samples=6,
    resamples=0,
)  # fmt: skip


def test_a_prior_is_trained_headless_and_sampled_by_a_sweep_over_guidance(tmp_path):
    linear_tokenizer(tmp_path / "tokenizer")
    data, outputs = colored_folders(tmp_path / "photos"), tmp_path / "outputs"
    given = SMALL | {"outputs": outputs, "tokenizer": tmp_path / "tokenizer", "data": data}
    words = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    run_it = [sys.executable, "-m", "tok1d.cli", "run", "notebooks/generate.ipynb"]
    subprocess.run([*run_it, *words], cwd=REPO, env=ENV, check=True)
    prior = Run(outputs / "priors" / "quickstart")
    assert prior.done and {file.stem for file in (prior / "samples").glob("*.png")} >= {
        "grid",
        "build-up",
        "nearest",
    }
    notebook = (prior / "generate.ipynb").read_text()
    assert "nats" in notebook and "tok1d-slider" in notebook
    assert (
        "nothing to do"
        in subprocess.run(
            [*run_it, *words], cwd=REPO, env=ENV, check=True, capture_output=True, text=True
        ).stdout
    )
    others = subprocess.run(
        [*run_it, *words, "-p", "guidance=3"], cwd=REPO, env=ENV, capture_output=True, text=True
    )
    said = f"its images are of guidance=2.0, not 3.0: type run=NAME prior_from={prior.path} for others"
    assert others.returncode == 1 and said in others.stderr  # not "nothing to do"
    assert newest_finished(outputs) == [] and [run.name for run in newest_finished(outputs, "prior")] == [
        "quickstart"
    ]

    params = {name: str(value) for name, value in given.items() if name != "outputs"}
    file = sweep_file(
        tmp_path, notebook="generate", params=params | {"prior_from": str(prior.path)},
        grid={"guidance": [3]}, after_sweep=["figures", "report"],
    )  # fmt: skip
    assert "1 of 1 runs are finished" in finish(file)
    sampled = Run(outputs / "tiny" / "guidance-3")
    assert not sampled.has_model  # that of the other run
    scales = {run.name: run.evaluation["card"]["sampling"]["guidance"] for run in (prior, sampled)}
    assert scales == {"quickstart": 2, "guidance-3": 3}
    assert (outputs / "tiny" / "report.html").exists()
    assert (outputs / "tiny" / "figures.ipynb").exists()
    with pytest.raises(Exception, match="there is no finished run"):  # of a tokenizer
        find_runs(outputs / "tiny")
    wrong = sweep_file(tmp_path, notebook="generate", params=params | {"tokenizer": "nowhere/at/all"})
    assert "there is no tokenizer nowhere/at/all: type tokenizer=FOLDER" in refused(wrong)


def test_a_sweep_of_priors_has_no_steps_of_tokenizers(tmp_path):
    file = sweep_file(tmp_path, notebook="generate", params=SMALL, after_run=["reconstruct"])
    with pytest.raises(ConfigError, match="measure themselves: leave out after_run:"):
        read_plan(file)
    file.write_text(yaml.safe_dump({"notebook": "generate", "params": SMALL, "grid": {"guidance": [0]}}))
    with pytest.raises(ConfigError, match="run guidance-0 of the sweep: guidance must be 1"):
        read_plan(file)


@pytest.mark.parametrize(
    "path", sorted((REPO / "params/generate").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_params_file_of_a_prior_is_valid(path):
    parse(read_params(path), *configs_of("generate"))
