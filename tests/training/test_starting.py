"""A run that starts from another, or from a pretrained file: proven before its images are read, once."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from checkpoints import NANO, save_upstream
from safetensors.torch import load_file, save_file
from tuning import SMALL, fresh, tuned
from workbench import ENV, REPO

from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse_train
from tok1d.data.dataset import load_data
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run
from tok1d.training.initialize import check_initialization, initialize_model
from tok1d.training.train import train


def small_run(folder, name: str, **params):
    """A run folder, its images, its tokenizer's parameters and those of its training."""
    values = SMALL | dict(outputs=folder, run=name, steps=4, batch_size=4, toy_images=20, toy_val_images=4)
    configs = parse_train(values | dict(checkpoint_every=2) | params)
    run = Run.open(*configs)
    images, _ = load_data(configs.data, configs.tokenizer.image_size, run.cache)
    return run, images, configs.tokenizer, configs.train


def test_a_run_starts_from_another_and_needs_it_no_more_once_begun(tmp_path):
    train(*small_run(tmp_path, "first"))
    first = tmp_path / "runs" / "first"
    arguments = small_run(tmp_path, "second", init_from=first, num_latent_tokens=16, encoder_freeze="all")
    run, _, tokenizer, config = arguments
    report = check_initialization(run, tokenizer, config)
    assert report["source"] == str(first / "model") and len(report["sha256"]) == 64
    model = train(*arguments)
    told = json.loads((run / "load_report.json").read_text())
    assert told | report == told and {row["part"] for row in told["parameters"]} >= {"decoder", "encoder.vit"}
    parent = Tokenizer.from_pretrained(first / "model")
    assert torch.equal(model.encoder.vit.norm.weight, parent.encoder.vit.norm.weight)
    assert not torch.equal(model.decoder.norm.weight, parent.decoder.norm.weight)
    shutil.rmtree(first)
    assert check_initialization(run, tokenizer, config) == told
    shutil.rmtree(run / "model")
    assert torch.equal(train(*arguments).decoder.norm.weight, model.decoder.norm.weight)


def test_an_unfinished_run_gives_its_averaged_weights(tmp_path):
    train(*small_run(tmp_path, "first"))
    first = tmp_path / "runs" / "first"
    weights = Tokenizer.from_pretrained(first / "model").state_dict()
    shutil.rmtree(first / "model")
    model, rows = tuned(first)
    assert rows["report"]["source"] == f"{first}/last.ckpt, averaged weights of a run that is not finished"
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_a_hub_id_is_found_offline_with_its_commit_and_fetched_by_prefetch(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--somebody--roads"
    fresh().save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    _, rows = tuned("somebody/roads")
    assert rows["report"]["source"] == f"somebody/roads@{commit}"
    assert tuned(f"somebody/roads@{commit}")[1]["report"]["sha256"] == rows["report"]["sha256"]
    command = [sys.executable, "-m", "tok1d.cli", "prefetch", "init_from=somebody/roads"]
    env = ENV | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True)
    assert result.returncode == 0 and "model.safetensors\n  sha256" in result.stdout, result.stderr
    with pytest.raises(ConfigError, match=r"'tok1d prefetch init_from=nobody/roads' where there is internet"):
        tuned("nobody/roads")


def test_what_was_proven_before_the_images_were_read_is_not_proven_again(tmp_path, monkeypatch):
    path, _ = save_upstream("mae", tmp_path, **NANO)
    values = dict(encoder_init="mae", encoder_size="nano", encoder_checkpoint=path, patch_size=8)
    run, _, tokenizer, config = small_run(tmp_path, "first", **values)
    report = check_initialization(run, tokenizer, config)
    assert report["cosine"]["least"] > 0.999
    compared = []
    monkeypatch.setattr(
        "tok1d.models.pretrained.compare_features", lambda *arguments: compared.append(arguments) or {}
    )
    model = Tokenizer(tokenizer)
    initialize_model(run, model, config)
    assert json.loads((run / "load_report.json").read_text()) == report and not compared
    save_file({name: 2 * tensor for name, tensor in load_file(path).items()}, path)
    initialize_model(run, model, config)
    assert compared and json.loads((run / "load_report.json").read_text())["sha256"] != report["sha256"]


def test_a_losss_missing_file_is_told_before_the_images_are_read(tmp_path):
    run, _, tokenizer, config = small_run(
        tmp_path, "first", perceptual_weight=1, perceptual_checkpoint=tmp_path / "vgg16.pth"
    )
    with pytest.raises(ConfigError, match=r"vgg16.pth.*perceptual_checkpoint"):
        check_initialization(run, tokenizer, config)
