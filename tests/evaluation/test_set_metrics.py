"""Distances of sets in an evaluation: of real features, cached by fingerprint, compared in pairs."""

import numpy as np
import pandas as pd
import pytest
import torch
from evaluating import build, finished_run, roads

from tok1d.cli import main
from tok1d.config.schema import EvalConfig
from tok1d.evaluation.evaluate import evaluate, reconstruct
from tok1d.evaluation.metrics.distances import frechet
from tok1d.evaluation.metrics.features import Extractor, build_extractor
from tok1d.evaluation.runs import compare, evaluate_run, worst

N = 6


@pytest.fixture
def weights(real_weights) -> str:
    return str(real_weights / "inception_fid.pth")


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """How many images went through a network of features, batch by batch."""
    seen, own = [], Extractor.forward
    monkeypatch.setattr(Extractor, "forward", lambda self, x: (seen.append(len(x)), own(self, x))[1])
    return seen


def test_rfid_is_that_of_the_features_and_originals_are_read_once(weights, passes, tmp_path):
    config = EvalConfig(
        metrics="rfid,kid,prdc",
        token_counts=8,
        inception_checkpoint=weights,
        eval_batch_size=4,
        resamples=50,
    )
    tokenizer, images = build(), roads(N)
    evaluation = evaluate(tokenizer, images, config, cache=tmp_path, table=tmp_path / "eval.parquet")
    assert sum(passes) == 2 * N
    originals = images.center_crops(range(N))
    extractor = build_extractor("inception", weights)
    real, made = extractor(originals), extractor(reconstruct(tokenizer, originals, (8,))[8])
    row = evaluation["results"][-1]
    assert row["rfid"] == pytest.approx(frechet(real, made), rel=1e-3)
    for name in ("rfid", "kid", "precision", "recall", "density", "coverage"):
        low, high = row[f"{name}_interval"]
        assert low <= row[name] <= high
    table = pd.read_parquet(tmp_path / "eval.parquet")
    shift = table[table.num_tokens == 8].sort_values("image").inception_shift
    np.testing.assert_allclose(shift, (real - made).norm(dim=1), rtol=1e-3)
    facts = evaluation["card"]["metrics"]["rfid"]
    assert facts["reference"] == "the evaluated images" and len(facts["sha256"]) == 64
    assert f"{N} images in 2048 dimensions is biased" in evaluation["warnings"][0]

    passes.clear()
    again = evaluate(tokenizer, images, config, cache=tmp_path)
    assert sum(passes) == N  # the originals' features are kept by fingerprint
    assert again["results"][-1]["rfid"] == pytest.approx(row["rfid"], rel=1e-6)

    config = config.model_copy(update={"metrics": ("rfid",)})
    other = evaluate(tokenizer, images, config, cache=tmp_path, reference=roads(N, start=50))
    assert other["results"][0]["rfid"] > row["rfid"] * 0.5 and other["results"][0]["rfid"] != row["rfid"]
    assert other["card"]["metrics"]["rfid"]["reference"]["data_fingerprint"] == f"roads-50-{N}"


def test_two_runs_are_compared_over_the_same_images(weights, tmp_path, capsys):
    a, b = finished_run(tmp_path, "a"), finished_run(tmp_path, "b", seed=1)
    arguments = ["-p", "metrics=psnr,rfid", "-p", f"inception_checkpoint={weights}", "-p", "token_counts=4"]
    arguments += ["-p", "linear_code=false"]
    assert main(["evaluate", str(a.path), str(b.path), *arguments, "-p", "resamples=100"]) == 0
    said = capsys.readouterr().out
    difference = b.evaluation["results"][0]["rfid"] - a.evaluation["results"][0]["rfid"]
    last = said.strip().splitlines()[-1]
    assert f"{difference:.2f} (" in last and "rFID" in said
    cases = worst(a, "rfid", count=3)
    assert list(cases.rows.inception_shift) == sorted(cases.rows.inception_shift, reverse=True)
    assert cases.originals.shape == (3, 3, 16, 16) and cases.originals.dtype == torch.uint8


def test_differences_of_every_distance_have_intervals(weights, tmp_path):
    a, b = finished_run(tmp_path, "a"), finished_run(tmp_path, "b", seed=1)
    config = EvalConfig(
        metrics="rfid,kid,prdc",
        token_counts=4,
        inception_checkpoint=weights,
        resamples=100,
        linear_code=False,
    )
    for run in (a, b):
        evaluate_run(run, config)
    names = ("rfid", "kid", "precision", "recall", "density", "coverage")
    (there,), (back,), (same,) = (compare(*runs, config) for runs in ((a, b), (b, a), (a, a)))
    for name in names:
        low, high = there[f"{name}_interval"]
        assert there[name] == b.evaluation["results"][0][name] - a.evaluation["results"][0][name]
        assert low <= there[name] <= high and there["rfid"] != 0
        assert back[name] == -there[name]
        assert back[f"{name}_interval"] == pytest.approx([-high, -low], rel=1e-6)
        assert same[name] == 0 and same[f"{name}_interval"] == [0, 0]
    table = pd.read_parquet(a / "eval.parquet")
    for name in ("rfid", "kid"):
        assert table[name].mean() == pytest.approx(a.evaluation["results"][0][name])
    assert "rfid_interval" not in compare(a, b, config.model_copy(update={"resamples": 0}))[0]


def test_prefetch_names_the_files_of_metrics(real_weights, capsys):
    files = {"inception_checkpoint": "inception_fid.pth", "lpips_checkpoint": "vgg16_features_keras.pth"}
    values = [f"{parameter}={real_weights / name}" for parameter, name in files.items()]
    assert main(["prefetch", "metrics=psnr,rfid,kid,lpips", *values]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in files.values()) and "2 pretrained files" in said


def test_a_missing_file_is_one_sentence(tmp_path, capsys):
    run = finished_run(tmp_path, "a")
    files = {"rfid": "inception_checkpoint", "frechet_dinov2": "dino_checkpoint", "lpips": "lpips_checkpoint"}
    for metric, parameter in files.items():
        asked = ["-p", f"metrics={metric}", "-p", f"{parameter}=gone.pth"]
        assert main(["evaluate", str(run.path), *asked]) == 1
        said = capsys.readouterr().err
        assert "there is no file gone.pth" in said and f"as {parameter}=PATH" in said
        assert said.count("tok1d: ") == 1 and not (run / "eval.json").exists()
