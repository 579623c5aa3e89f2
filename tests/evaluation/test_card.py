"""Numbers are put side by side only if they were measured alike; the difference is named."""

import copy

import pytest
import torch
from patients import start_run

from tok1d.config.schema import TokenizerConfig
from tok1d.evaluation.card import differences, same_card
from tok1d.models.tokenizer import Tokenizer
from tok1d.models.weights import model_sha256
from tok1d.runs import RunError

CARD = {
    "model": "outputs/runs/a", "model_sha256": "aa", "token_counts": [1, 2], "images": 400, "image_size": 256,
    "resize": "shorter side, bicubic", "pixels_sha256": "12",
    "metrics": {"psnr": {"name": "PSNR"}, "rfid": {"extractor": "inception", "weights_sha256": "34"}},
    "made_with": {"torch": "2.11", "device": "cpu"},
}  # fmt: skip


def changed(**values) -> dict:
    return copy.deepcopy(CARD) | values


def test_what_identifies_a_model_may_differ():
    other = changed(model="b", model_sha256="bb", token_counts=[64], made_with={"device": "H200"})
    assert differences(CARD, other) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("images", 200), ("image_size", 64), ("resize", "bilinear"), ("pixels_sha256", "99"), ("dtype", "bf16")],
)
def test_how_it_was_measured_must_not(name, value):
    assert differences(CARD, changed(**{name: value})) == {name: (CARD.get(name), value)}
    assert differences(changed(**{name: value}), CARD) == {name: (value, CARD.get(name))}


def test_a_metric_brings_its_own_facts():
    other = changed(metrics={"rfid": {"extractor": "inception", "weights_sha256": "other"}})
    named = {"metrics.rfid.weights_sha256": ("34", "other")}
    assert differences(CARD, other) == differences(CARD, other, "rfid") == named
    assert differences(CARD, other, "precision") == {}  # neither has it
    with_psnr = changed(metrics=CARD["metrics"] | other["metrics"])
    assert differences(CARD, with_psnr, "psnr") == {} and differences(CARD, with_psnr)


def test_runs_are_refused_by_name(tmp_path):
    runs = []
    for name, card in (("a", CARD), ("b", changed(model="b")), ("c", changed(resize="bilinear"))):
        runs.append(start_run(tmp_path / name))
        runs[-1].write_json("eval.json", {"card": card, "results": []})
    same_card(runs[:2])
    with pytest.raises(RunError, match=r"resize=bilinear, .* with shorter side, bicubic: evaluate both"):
        same_card(runs)


def test_each_pair_that_shares_a_metric_is_compared(tmp_path):
    """The first has no rFID, so it agrees with both of the others; they do not."""
    cards = [changed(metrics={"psnr": {"name": "PSNR"}}), CARD]
    cards.append(changed(metrics=CARD["metrics"] | {"rfid": {"weights_sha256": "56"}}))
    runs = []
    for name, card in zip("abc", cards, strict=True):
        runs.append(start_run(tmp_path / name))
        runs[-1].write_json("eval.json", {"card": card, "results": []})
    with pytest.raises(RunError, match=r"metrics\.rfid"):
        same_card(runs)


def test_the_hash_of_a_model_is_that_of_its_weights_and_config(tmp_path):
    config = TokenizerConfig(
        image_size=16, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=4
    )
    tokenizer = Tokenizer(config)
    tokenizer.save_pretrained(tmp_path)
    before = model_sha256(tokenizer)
    assert before == model_sha256(Tokenizer.from_pretrained(tmp_path))
    with torch.no_grad():
        next(tokenizer.parameters()).flatten()[0] += 1e-3
    assert model_sha256(tokenizer) != before
    assert model_sha256(object()).startswith("none")
