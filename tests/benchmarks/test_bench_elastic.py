"""The elastic benchmark: its schedules are what their names say, and its figure holds what was measured."""

import json
import math

import pytest
from PIL import Image

from benchmarks import elastic_schedules
from benchmarks.elastic_schedules import SCHEDULES, curve
from tok1d.config.schema import TokenizerConfig, TrainConfig
from tok1d.training.task import sample_num_tokens

TINY = "image_size=16 patch_size=8 num_latent_tokens=4 steps=2 batch_size=2 toy_images=8 toy_val_images=4"


def test_schedules_do_what_they_say():
    tokenizer, train = TokenizerConfig(encoder="vit", num_latent_tokens=32), TrainConfig(steps=1000)
    drawn = {s.label: [s.count(step, tokenizer, train) for step in range(1000)] for s in SCHEDULES}
    powers = {1, 2, 4, 8, 16, 32}
    for label, share in {"at step 0": 0, "after 10 %": 100, "after 40 %": 400, "never": 1000}.items():
        assert set(drawn[label][:share]) <= {32}
        assert set(drawn[label][share:]) == (powers if share < 1000 else set())
    assert drawn["after 20 %"] == [  # what `tok1d.training.task` does itself
        sample_num_tokens(step, tokenizer, train.model_copy(update={"elastic_warmup_fraction": 0.2}))
        for step in range(1000)
    ]
    uniform = drawn["after 20 %, uniform"]
    assert set(uniform[:200]) == {32} and set(uniform[200:]) == set(range(1, 33))
    half = drawn["at 0, in half the steps"]
    assert set(half) == powers and 0.5 < sum(count == 32 for count in half) / 1000 < 0.67


def test_the_figure_holds_what_was_measured(tmp_path, capsys):
    out = tmp_path / "schedules"
    elastic_schedules.main(*TINY.split(), "seeds=1", f"outputs={tmp_path}", f"out={out}")
    figure, *records = json.loads(out.with_suffix(".json").read_text())["drawn"]
    assert len(figure["table"]) == 2 * len(SCHEDULES)
    assert len(records) == 2 * len(SCHEDULES) * 3 * 2  # after 0, 1 and 2 steps, with 1 and 4 tokens
    row = figure["table"][0]
    last = [r for r in records if r["schedule"] == row["prefixes"] and r["token_mixing"] and r["step"] == 2]
    assert row["dB at 4"] == round(-10 * math.log10(last[-1]["mse"]), 2) and last[-1]["num_tokens"] == 4
    shown = capsys.readouterr().out
    assert "| at step 0 | True |" in shown and "the mean image:" in shown
    assert Image.open(out.with_suffix(".png")).width > 1000 and out.with_suffix(".pdf").stat().st_size > 5000


def test_a_curve_is_the_geometric_mean_over_seeds():
    records = [
        dict(step=s, seed=seed, mse=0.1 * 4**seed * 2**-s, kind="a") for seed in (0, 1) for s in (0, 1)
    ]
    steps, losses = curve([*records, dict(step=0, mse=9.0, kind="b")], kind="a")
    assert steps == [0, 1] and losses == pytest.approx([0.2, 0.1])


def test_a_bad_value_is_one_sentence():
    with pytest.raises(SystemExit, match="stepps is not a parameter: did you mean steps"):
        elastic_schedules.main("stepps=3")
