"""`tok1d evaluate RUN…`: what it prints, what it keeps, what it refuses; and the way back to the images."""

import json
import re
import shutil
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
from tok1d.evaluation.metrics.images import psnr
from tok1d.evaluation.runs import compare, evaluate_run, evaluation_images, worst
from tok1d.figures.draw import draw_figure
from tok1d.figures.quality import quality
from tok1d.figures.series import LINEAR
from tok1d.jupyter.tables import print_table
from tok1d.runs import Run, RunError
from tok1d.runs.find import find_runs


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
    assert a.on(str(folder)).evaluation["card"]["images"] == 5
    with pytest.raises(RunError, match=r"images=12, .* with 5"):
        compare(a.on(str(folder)), b, FAST)
    with pytest.raises(
        RunError, match=f"was not evaluated on {folder}: type 'tok1d evaluate {b.path} --data "
    ):
        b.on(str(folder))
    assert evaluated(a.path, b.path, "--data", folder) == 0  # both alike
    assert f"{b.path} minus {a.path}" in capsys.readouterr().out


def test_an_evaluation_elsewhere_lies_beside_the_runs_own(tmp_path, photos, capsys):
    """Two sets of other images, one of them under two names; comparisons read those that are asked for."""
    a, b = finished_run(tmp_path, "a"), finished_run(tmp_path, "b", seed=1)
    one, other = photos(5), photos(3, "other", start=9)
    assert evaluated(a.path, b.path) == 0
    own = {name: (a / name).read_bytes() for name in ("eval.json", "eval.parquet")}
    difference = compare(a, b, FAST)[0]["psnr"]
    for data in (str(one) + "/", other, one):
        assert evaluated(a.path, b.path, "--data", data) == 0
    assert len(list((a / "evaluations").iterdir())) == 2
    assert own == {name: (a / name).read_bytes() for name in own}
    there = compare(*(run.on(str(other)) for run in (a, b)), FAST)[0]
    assert there["psnr"] != difference and "psnr_interval" in there
    assert len(worst(a.on(str(other)), "psnr").rows) == 3 and len(worst(a, "psnr").rows) == 10
    drawn = quality(find_runs(tmp_path / "runs", eval_data=str(other)), "psnr")
    rows = a.on(str(other)).evaluation["results"]
    own_line = [d["psnr"] for d in drawn if d["run"] == str(a.path) and d["series"] != LINEAR]
    assert own_line == [row["psnr"] for row in rows]
    assert compare(a, b, FAST)[0]["psnr"] == difference
    draw_figure("quality", find_runs(tmp_path / "runs"), tmp_path / "figures")
    assert "12 images of toy-roads (validation)" in (tmp_path / "figures" / "quality.json").read_text()


def test_an_old_run_whose_evaluation_is_of_other_images(tmp_path, photos):
    """As tok1d left it before: it is read as it is, and kept when its own validation images are measured."""
    run, folder = finished_run(tmp_path, "a"), str(photos(12))
    evaluate_run(run, FAST, folder)
    place = run.on(folder).evaluated
    for name in ("eval.json", "eval.parquet"):
        shutil.move(place / name, run / name)
    shutil.rmtree(run / "evaluations")
    old = run.evaluation
    assert old["data"] == folder and run.on(folder).evaluation == old and len(worst(run, "psnr").rows) == 10
    evaluate_run(run, FAST, again=False)
    assert run.evaluation["data"] == "" and run.on(folder).evaluation == old
    assert len(worst(run.on(folder), "psnr").rows) == 10


def test_a_run_is_opened_from_another_folder(tmp_path, photos, monkeypatch):
    """Its data are where they were when it was made; if not, a sentence says what to type."""
    photos(30)
    monkeypatch.chdir(tmp_path)
    run = finished_run("outputs", "a", data="photos")
    assert evaluated(run.path) == 0 and run.cache == Path("outputs/.cache")
    kept = (run / "eval.json").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = Run("../outputs/runs/a")
    assert len(worst(run, "psnr").rows) == 1 and not list(Path().iterdir())
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"photos, are not here: type 'tok1d evaluate \S+ --data FOLDER'"):
        evaluate_run(run, FAST)
    assert (run / "eval.json").read_bytes() == kept
    assert evaluated(run.path, "--data", tmp_path / "moved") == 0


def test_what_messages_about_images_say_can_be_typed(tmp_path, photos, capsys):
    run, folder = finished_run(tmp_path, "a"), photos(4)
    (folder / "a.png").write_bytes(b"no image")
    assert evaluated(run.path, "--data", folder) == 1
    advice = re.findall(r"type (max_unreadable=[\d.]+) ", capsys.readouterr().err)
    assert evaluated(run.path, "--data", folder, "-p", *advice) == 0
    assert len(worst(run.on(str(folder)), "psnr").rows) == 3  # read as it was evaluated
    (tmp_path / "list.txt").write_text("b.png\nc.png\n")
    listed = ["--data", tmp_path / "list.txt"]
    assert evaluated(run.path, *listed) == 1
    assert evaluated(run.path, *listed, "-p", "data_root=nosuch") == 1
    assert "type data_root=FOLDER" in capsys.readouterr().err
    assert evaluated(run.path, *listed, "-p", f"data_root={folder}") == 0
    assert len(worst(run.on(str(listed[1])), "psnr").rows) == 2


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
        evaluate_run(run, FAST, str(photos(12)))
    old = (one.on(str(photos(12))).evaluated / "eval.parquet").read_bytes()
    for run in (one, other):
        evaluate_run(run, FAST)
    (one / "eval.parquet").write_bytes(old)
    says = "eval.parquet is not of the evaluation in eval.json: measure it again with 'tok1d evaluate"
    with pytest.raises(RunError, match=says):
        compare(one, other, FAST)
    with pytest.raises(RunError, match=says):
        worst(one, "psnr")
    evaluate_run(one, FAST, again=again)
    assert compare(one, other, FAST) and len(worst(one, "psnr").rows) == 10
