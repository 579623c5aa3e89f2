"""`tok1d evaluate RUN…`: what it prints, what it keeps, what it refuses; and the way back to the images."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from evaluating import FAST, TINY, finished_run

from tok1d.cli import main
from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse_train
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import to_float
from tok1d.evaluation.image_metrics import psnr
from tok1d.evaluation.runs import compare, evaluate_run, evaluation_images, worst
from tok1d.figures.quality import LINEAR, quality
from tok1d.jupyter.tables import print_table
from tok1d.runs import Run, RunError


def evaluated(*arguments) -> int:
    return main(["evaluate", *map(str, arguments), "-p", "resamples=100"])


def test_numbers_with_intervals_and_their_card_are_kept(tmp_path, capsys):
    run = finished_run(tmp_path, "a")
    assert evaluated(run.path) == 0
    said = capsys.readouterr().out
    assert "12 images" in said and "PSNR (dB)" in said and " … " in said and "MS-SSIM is left out" in said
    results = run.evaluation["results"]
    assert [row["num_tokens"] for row in results] == [1, 2, 4]
    for row in results:
        for name in ("psnr", "ssim", "code_perplexity"):
            low, high = row[f"{name}_interval"]
            assert low <= row[name] <= high
        assert row["decode_images_per_s"] > 0 and ("encode_images_per_s" in row) == (row["num_tokens"] == 4)
    card = run.evaluation["card"]
    assert card["model"] == str(run.path) and card["images"] == 12 and card["data"] == "toy-roads"
    table = pd.read_parquet(run / "eval.parquet")
    assert len(table) == 36 and {"name", "image", "num_tokens", "psnr", "ssim", "bits"} <= set(table)


def test_other_images_are_another_card(tmp_path, photos, capsys):
    a, b = finished_run(tmp_path, "a"), finished_run(tmp_path, "b", seed=1)
    folder = photos(5)
    assert evaluated(a.path, "--data", folder) == 0 and evaluated(b.path) == 0
    capsys.readouterr()
    assert a.evaluation["card"]["images"] == 5
    with pytest.raises(RunError, match=r"images=12, .* with 5"):
        compare(a, b, FAST)
    assert evaluated(a.path, b.path, "--data", folder) == 0  # both alike
    assert f"{b.path} minus {a.path}" in capsys.readouterr().out


def test_runs_of_other_sizes_are_refused_side_by_side(tmp_path, capsys):
    a, b = finished_run(tmp_path, "a"), finished_run(tmp_path, "b", image_size=32)
    assert evaluated(a.path, b.path) == 1
    said = capsys.readouterr()
    assert "image_size=32" in said.err and said.err.count("tok1d: ") == 1
    assert b.evaluation["results"]  # measured nevertheless


def test_differences_are_paired_over_images(tmp_path):
    a, b = finished_run(tmp_path, "a"), finished_run(tmp_path, "b", seed=1)
    for run in (a, b):
        evaluate_run(run, FAST)
    row = compare(a, b, FAST)[-1]
    alone = [run.evaluation["results"][-1] for run in (a, b)]
    assert row["psnr"] == pytest.approx(alone[1]["psnr"] - alone[0]["psnr"])
    low, high = row["psnr_interval"]
    widths = [r["psnr_interval"][1] - r["psnr_interval"][0] for r in alone]
    assert low < row["psnr"] < high and high - low < max(widths)
    same = compare(a, a, FAST)[-1]
    assert same["psnr"] == 0 and same["psnr_interval"] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "nowhere"], "there is no nowhere"),
        (["--data", "EMPTY"], "there are no images in"),
        (["-p", "metrics=psnr,fid"], "each of metrics must be of psnr, ssim"),
        (["-p", "metrics=lpips", "-p", "lpips_checkpoint=gone.pth"], "there is no file gone.pth"),
        (["-p", "token_counts=9"], "token_counts=9 is no count of this tokenizer"),
    ],
)
def test_errors_are_one_sentence_and_earlier_results_stay(tmp_path, arguments, sentence, capsys):
    run = finished_run(tmp_path, "a")
    assert evaluated(run.path) == 0
    before = {name: (run / name).read_bytes() for name in ("eval.json", "eval.parquet")}
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "empty") if text == "EMPTY" else text for text in arguments]
    capsys.readouterr()
    assert evaluated(run.path, *arguments) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert before == {name: (run / name).read_bytes() for name in before}
    assert not list(run.path.glob(".*.tmp"))


def test_runs_that_cannot_be_evaluated(tmp_path, capsys):
    begun = Run.open(*parse_train(TINY | {"outputs": tmp_path, "run": "begun"}))
    lost = finished_run(tmp_path, "lost")
    (lost / "model" / "model.safetensors").unlink()
    for run, sentence in ((begun, "is not a finished run"), (lost, "has lost its weights")):
        assert evaluated(run.path) == 1
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1


def test_from_a_number_to_the_images_behind_its_worst_cases(tmp_path):
    run = finished_run(tmp_path, "a")
    evaluate_run(run, FAST)
    images = evaluation_images(run, "", 16)
    cases = worst(run, "psnr", num_tokens=2, count=5)
    table = pd.read_parquet(run / "eval.parquet")
    lowest = np.sort(table[table.num_tokens == 2].psnr)[:5]
    np.testing.assert_array_equal(cases.rows.psnr, lowest)
    assert torch.equal(cases.originals, images.center_crops(cases.rows.image.tolist()))
    shown = psnr(to_float(cases.reconstructions), to_float(cases.originals))
    np.testing.assert_allclose(shown, lowest, rtol=1e-4)  # they are the very images
    assert len(worst(run, "code_perplexity").rows) == 10
    with pytest.raises(
        ConfigError, match=r"has no rfid: measure it with 'tok1d evaluate .* metrics=.*,rfid'"
    ):
        worst(run, "rfid")
    with pytest.raises(ConfigError, match="not evaluated at 3 tokens: type one of 1, 2, 4"):
        worst(run, "psnr", num_tokens=3)


def test_what_is_measured_is_neither_measured_again_nor_lost(tmp_path):
    run = finished_run(tmp_path, "a")
    first = json.loads(json.dumps(evaluate_run(run, EvalConfig(resamples=100, metrics="psnr,ssim"))))
    written = (run / "eval.json").stat().st_mtime_ns
    for asked in (EvalConfig(), EvalConfig(metrics="psnr", token_counts=2), EvalConfig(show_images=2)):
        assert evaluate_run(run, asked, again=False) == first
    assert (run / "eval.json").stat().st_mtime_ns == written
    fewer = evaluate_run(run, EvalConfig(eval_images=5), again=False)
    assert fewer["card"]["images"] == 5 and fewer["asked"]["resamples"] == 100
    more = evaluate_run(run, EvalConfig(metrics="ms_ssim", token_counts=3), again=False)
    assert more["asked"]["metrics"] == ["psnr", "ssim", "ms_ssim"] and more["card"]["images"] == 5
    assert [row["num_tokens"] for row in more["results"]] == [1, 2, 3, 4]


def test_a_table_that_is_wider_than_the_terminal_becomes_several(capsys, monkeypatch):
    rows = [{"num_tokens": k, "psnr": 20.0, "psnr_interval": [19.0, 21.0], "ssim": 0.5} for k in (8, 16)]

    def printed(columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(rows)
        return re.sub("\x1b[^m]*m", "", capsys.readouterr().out).splitlines()

    monkeypatch.delenv("TERM", raising=False)
    assert len(printed(22)) == 3 and "20.00 (19.00 … 21.00)" in printed(22)[1]  # no terminal: a line a row
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    narrow = printed(24)
    assert len(narrow) == 5 + 3 and max(map(len, narrow)) <= 24  # an interval is below its number
    assert narrow[0].split() == ["tokens", "PSNR", "(dB)"] and narrow[5].split() == ["tokens", "SSIM"]
    assert len(printed(80)) == 5


def test_a_linear_code_of_equal_bits_is_measured_beside_it_and_drawn(tmp_path):
    run = finished_run(tmp_path, "a", toy_images=40)
    evaluation = evaluate_run(run, EvalConfig(resamples=100, metrics="psnr"))
    rows, line = evaluation["results"], evaluation["linear_code"]
    assert [(r["num_tokens"], r["bits"]) for r in line] == [(r["num_tokens"], r["bits"]) for r in rows]
    assert (
        line[0]["psnr"] < line[-1]["psnr"] and line[-1]["psnr"] > rows[-1]["psnr"]
    )  # its weights are random
    assert run.evaluation == evaluation and len(list(Path(run.cache).glob("linear-*.json"))) == 1
    drawn = quality([run])
    assert [d["psnr"] for d in drawn if d["series"] == LINEAR] == [row["psnr"] for row in line]
    few = finished_run(tmp_path, "b", quantizer="vq", codebook_size=16)  # 4 bits a token
    line = evaluate_run(few, EvalConfig(resamples=0, metrics="psnr"))["linear_code"]
    assert [row["bits"] for row in line] == [4, 8, 16]


@pytest.mark.parametrize("again", [False, True])
def test_numbers_are_never_shown_beside_the_table_of_other_images(tmp_path, photos, again):
    """A process killed between the two files of an evaluation."""
    one, other = (finished_run(tmp_path, name, seed) for seed, name in enumerate("ab"))
    for run in (one, other):
        evaluate_run(run, FAST)
    old = (one / "eval.parquet").read_bytes()
    evaluate_run(one, FAST, str(photos(12)))
    evaluate_run(other, FAST, str(photos(12)))
    (one / "eval.parquet").write_bytes(old)
    says = "eval.parquet is not of the evaluation in eval.json: measure it again with 'tok1d evaluate"
    with pytest.raises(RunError, match=says):
        compare(one, other, FAST)
    with pytest.raises(RunError, match=says):
        worst(one, "psnr")
    evaluate_run(one, FAST, str(photos(12)), again=again)
    assert compare(one, other, FAST) and len(worst(one, "psnr").rows) == 10
