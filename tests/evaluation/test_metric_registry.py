"""A metric is a row of the registry and a function: they agree, and all else follows from the row."""

import re

import pytest
import torch.nn.functional as F
from evaluating import build, roads
from torch import nn

from tok1d.config.registry import CODE_NUMBERS, METRICS, NUMBERS, asked_as, image_column
from tok1d.config.schema import EvalConfig
from tok1d.evaluation.evaluate import evaluate
from tok1d.evaluation.metrics import sets
from tok1d.evaluation.metrics.features import Extractor, checkpoint_of
from tok1d.evaluation.metrics.images import FORMULAS
from tok1d.evaluation.metrics.sets import SET_METRICS
from tok1d.evaluation.table import columns_of

LPIPS = {"lpips"}  # is a network, and the only one of single images


def test_every_row_has_its_function():
    of_sets = {name for name, metric in METRICS.items() if metric.network}
    assert of_sets == set(SET_METRICS)
    assert METRICS.keys() - of_sets == set(FORMULAS) | LPIPS
    assert all(metric.card for name, metric in METRICS.items() if name not in LPIPS), (
        "the card says what it is"
    )


@pytest.mark.parametrize("name", METRICS)
def test_a_row_says_all_that_is_asked_of_it(name):
    metric = METRICS[name]
    assert EvalConfig(metrics=name).metrics == (name,)
    assert all(asked_as(number) == name and number in NUMBERS for number in metric.numbers)
    assert name in EvalConfig.model_fields["metrics"].description or name in EvalConfig().metrics
    if metric.network:
        assert checkpoint_of(metric.network, EvalConfig()) == ""
    else:
        assert len(metric.numbers) == 1 or name in LPIPS


def test_numbers_lead_to_the_images_behind_them():
    """Of sets: to those whose features moved most, whichever end of the number is the bad one."""
    assert image_column("psnr") == ("psnr", True) and image_column("lpips") == ("lpips", False)
    assert image_column("recall") == ("inception_shift", False) and NUMBERS["recall"].higher_is_better
    assert image_column("frechet_dinov2") == ("dinov2_shift", False)
    assert {image_column(number) for number in CODE_NUMBERS} == {("different_codes", True)}


class Means(nn.Module):
    """uint8 [B, 3, H, W] -> the means of 12 parts of each image, [B, 12]: features without a file."""

    def forward(self, images):
        return F.adaptive_avg_pool2d(images.float(), 2).flatten(1)


def test_an_evaluation_gives_every_number_and_card(monkeypatch, tmp_path):
    """With features of a network that needs no weights, so that it runs everywhere."""

    def build_extractor(name, weights, size, dtype):
        return Extractor(Means(), name, 12, dtype, {"network": name, "source": "here"})

    monkeypatch.setattr(sets, "build_extractor", build_extractor)
    asked = tuple(name for name in METRICS if name not in LPIPS)
    config = EvalConfig(metrics=asked, token_counts=(8,), resamples=20)
    tokenizer = build(image_size=176, patch_size=16)
    evaluation = evaluate(tokenizer, roads(24, 176), config, table=tmp_path / "eval.parquet")
    (row,), cards = evaluation["results"], evaluation["card"]["metrics"]
    for name in asked:
        assert METRICS[name].numbers.keys() <= row.keys()
        assert cards[name]["name"] == METRICS[name].card
        assert cards[name].get("network", "") == METRICS[name].network
    assert cards["kid"].items() >= {"subsets": 100, "size": 1000}.items() and cards["prdc"]["k"] == 5
    warned = {text.split(":")[0] for text in evaluation["warnings"]}
    assert warned == set(), "24 images in 12 dimensions are not too few"
    columns = set(columns_of(tmp_path / "eval.parquet"))
    assert all(image_column(number)[0] in columns for name in asked for number in METRICS[name].numbers)


def test_every_frechet_distance_carries_the_note_of_few_images():
    named = {name for name in SET_METRICS if re.search("FID|Fréchet", METRICS[name].card)}
    assert named == {name for name, row in SET_METRICS.items() if row.gaussian} and len(named) > 2
