"""Runs made before the package moved into folders, with the parameter names of then, are still runs."""

import tarfile

import pytest
from workbench import REPO

from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import configs_of
from tok1d.config.parse import RENAMED, parse_train
from tok1d.config.schema import fields
from tok1d.data.dataset import load_data
from tok1d.evaluation.runs import evaluate_run, measure
from tok1d.figures.draw import draw_figure
from tok1d.models import vit
from tok1d.runs import Run
from tok1d.runs.find import find_runs
from tok1d.training.train import train


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """`finished` and `stopped` (at step 10 of 20), of a network small enough to be kept in git."""
    with tarfile.open(REPO / "tests/data/runs_before_the_move.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setitem(vit.VIT_SIZES, "nano", (16, 1, 2))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs" / "before"


def test_they_are_continued_evaluated_and_drawn(folder, capsys):
    names = set((folder / "stopped" / "params.yaml").read_text().replace(":", "").split())
    assert {"accumulate", "elastic_full_share", "encoder_weights"} <= names
    stopped = Run(folder / "stopped")
    params = parse_train(stopped.params)
    assert params.train.grad_accum_steps == 2 and params.train.elastic_warmup_fraction == 0.4
    assert "is called" not in capsys.readouterr().err  # it is nobody's mistake
    run = Run.open(*params)
    images, val_images = load_data(params.data, params.tokenizer.image_size, run.cache)
    tokenizer = train(run, images, params.tokenizer, params.train)
    assert "continuing" in capsys.readouterr().out and [r["step"] for r in run.metrics] == list(
        range(2, 21, 2)
    )
    run.finish(results=measure(run, tokenizer, val_images, params.evaluation)["results"])

    finished = Run(folder / "finished").finished
    before = finished.evaluation["results"]
    after = evaluate_run(finished, params.evaluation)["results"]
    assert [row["num_tokens"] for row in after] == [row["num_tokens"] for row in before] == [1, 2, 4]
    for old, new in zip(before, after, strict=True):
        assert new["psnr"] == pytest.approx(old["psnr"], abs=1e-3)  # toy roads are drawn, not resized
    for name in ("quality", "codes", "training"):
        draw_figure(name, find_runs(folder), folder / "figures")
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_is_taken_and_the_new_one_is_said(old, capsys):
    known = fields(*configs_of("train"))
    assert old not in known
    value = known[RENAMED[old]].default
    assert parse_train({old: value}) == parse_train({RENAMED[old]: value}) == parse_train({})
    assert f"{old} is called {RENAMED[old]} now: type {RENAMED[old]}=" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=f"{old} is called {RENAMED[old]} now, and both are given"):
        parse_train({old: value, RENAMED[old]: value})
