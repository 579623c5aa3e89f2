"""Weights or a config that are not all there are refused wherever a tokenizer is read."""

import json
import shutil

import pytest
import torch
from evaluating import finished_run
from safetensors.torch import load_file, save_file
from small_run import start

from tok1d.cli import main
from tok1d.config.fields import ConfigError
from tok1d.config.parse import BEFORE
from tok1d.models.finetune import read_parent
from tok1d.models.quantizers import QUANTIZER_CLASSES
from tok1d.models.tokenizer import Tokenizer
from tok1d.training.train import train


def cut(name: str, change):
    def spoil(folder):
        state = change(load_file(folder / name))
        save_file(state, folder / name)

    return spoil


def rewritten(change):
    def spoil(folder):
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(change(values)))

    return spoil


def without(values: dict, start: str) -> dict:
    return {name: value for name, value in values.items() if not name.startswith(start)}


W = "model.safetensors"
SPOILED = {  # what was done to a model folder: what is said
    "no decoder": (cut(W, lambda s: without(s, "decoder.")), r"lacks decoder\.[\w.]+, .* and \d+ more"),
    "one bias": (cut(W, lambda s: without(s, "to_codes.bias")), r"lacks to_codes.bias: bring the whole file"),
    "renamed": (cut(W, lambda s: {f"module.{n}": t for n, t in s.items()}), r"lacks .*, has unknown module"),
    "more": (cut(W, lambda s: s | {"head.weight": torch.zeros(2)}), r"has unknown head.weight"),
    "shape": (cut(W, lambda s: s | {"to_codes.bias": torch.zeros(2)}), r"another shape of to_codes.bias"),
    "empty": (cut(W, lambda s: {}), r"holds no tensors by name"),
    "half a file": (lambda f: (f / W).write_bytes((f / W).read_bytes()[:5000]), r"is damaged or cut short"),
    "no quantizer": (rewritten(lambda c: without(c, "quantizer")), r"config.json lacks quantizer: bring"),
    "no names": (rewritten(lambda c: []), r"config.json"),
    "another name": (rewritten(lambda c: c | {"quantiser": "vq"}), r"quantiser is not a parameter: did"),
    "bad value": (rewritten(lambda c: c | {"quantizer": "pq"}), r"quantizer must be one of"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config.json|no tokenizer|not a finished run"),
    "half a config": (lambda f: (f / "config.json").write_text('{"quan'), r"config.json|no tokenizer"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("whole"), "a")


@pytest.mark.parametrize("what", SPOILED)
def test_a_folder_that_is_not_all_there_is_refused_everywhere(whole, tmp_path, what, capsys):
    spoil, says = SPOILED[what]
    run = tmp_path / "runs" / "a"
    shutil.copytree(whole.path, run)
    spoil(run / "model")
    for read in (Tokenizer.from_pretrained, lambda folder: read_parent(str(folder))):
        with pytest.raises(ConfigError, match=says) as caught:
            read(run / "model")
        assert "\n" not in str(caught.value) and str(run / "model") in str(caught.value)
    capsys.readouterr()
    assert main(["evaluate", str(run), "-p", "linear_code=false"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and not (run / "eval.json").exists()


@pytest.mark.parametrize("what", ["no decoder", "renamed", "no quantizer"])
def test_of_a_hub_id_too(whole, tmp_path, what, monkeypatch):
    spoil, says = SPOILED[what]
    repository, commit = tmp_path / "models--owner--name", "a" * 40
    shutil.copytree(whole / "model", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    spoil(repository / "snapshots" / commit)
    for module in ("hub_mixin", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for read in (lambda name: Tokenizer.from_pretrained(name, cache_dir=tmp_path), read_parent):
        with pytest.raises(ConfigError, match=f"{says}|hub id"):
            read("owner/name")


def test_a_checkpoint_that_is_not_all_there_is_no_parent(tmp_path):
    run, images, tokenizer, config = start(tmp_path, steps=2)
    train(run, images, tokenizer, config)
    shutil.rmtree(run / "model")
    read_parent(str(run.path))
    content = torch.load(run / "last.ckpt", weights_only=True)
    content["ema"] = without(content["ema"], "decoder.")
    torch.save(content, run / "last.ckpt")
    with pytest.raises(ConfigError, match=r"last.ckpt lacks decoder.* and \d+ more"):
        read_parent(str(run.path))


@pytest.mark.parametrize("quantizer", QUANTIZER_CLASSES)
@pytest.mark.parametrize(
    "more", [{}, {"decoder_refine": "nano"}, {"decoder_head": "cnn", "cnn_multipliers": "1,1,2,2"}]
)
def test_what_is_saved_is_complete(tmp_path, quantizer, more):
    run = finished_run(tmp_path, "a", quantizer=quantizer, **more)
    Tokenizer.from_pretrained(run / "model")
    read_parent(str(run.path))


def test_a_config_of_before_lacks_what_was_added(whole, tmp_path):
    shutil.copytree(whole / "model", tmp_path / "model")
    rewritten(lambda c: {n: v for n, v in c.items() if n not in BEFORE})(tmp_path / "model")
    assert (
        Tokenizer.from_pretrained(tmp_path / "model").config
        == Tokenizer.from_pretrained(whole / "model").config
    )
