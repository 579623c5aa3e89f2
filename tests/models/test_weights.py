"""Weights that are away, damaged, foreign or harmful: one sentence, before anything is trained."""

import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import NANO, save_upstream
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from workbench import ENV, REPO, tok1d_run

from tok1d.config.fields import ConfigError
from tok1d.config.schema import StartConfig, TokenizerConfig
from tok1d.models.encoder import Encoder
from tok1d.models.pretrained import load_pretrained_encoder
from tok1d.models.weights import hub_file, locate, reachable

SMALL = TokenizerConfig(image_size=64, encoder_size="nano", decoder_size="nano", encoder_init="mae")


class Harmful:
    def __reduce__(self):
        return (print, ("code in a pickle has run",))


def broken(kind: str, folder: Path) -> Path:
    good, _ = save_upstream("mae", folder, **NANO)
    pth = folder / "bad.pth"
    if kind == "cut.safetensors":
        bad = folder / kind
        bad.write_bytes(good.read_bytes()[:-1000])
        return bad
    if kind == "other architecture":
        return save_upstream("dinov2", folder, **NANO)[0]
    if kind == "other size":
        return save_upstream("mae", folder, **NANO | dict(embed_dim=64))[0]
    torch.save(Harmful() if kind == "malicious" else load_file(good), pth)
    if kind == "cut.pth":
        pth.write_bytes(pth.read_bytes()[:-1000])
    if kind == "old malicious":
        pth.write_bytes(pickle.dumps({"weights": Harmful()}))
    if kind == "text":
        pth.write_text("<html>not found</html>")
    if kind == "empty":
        pth.write_bytes(b"")
    return pth


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cut.safetensors", "is damaged or cut short"),
        ("cut.pth", "is damaged or cut short"),
        ("empty", "is damaged or cut short"),
        ("text", "is refused"),
        ("malicious", "is refused, since it holds code"),
        ("old malicious", "is refused, since it holds code"),
        ("other architecture", "(blocks.0.ls1.gamma is unexpected"),
        ("other size", "is wrong shape"),
    ],
)
def test_a_bad_file_is_one_sentence(kind, said, tmp_path, capfd):
    path = broken(kind, tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_pretrained_encoder(Encoder(SMALL), SMALL, StartConfig(encoder_checkpoint=str(path)))
    text = str(caught.value)
    assert said in text and str(path) in text and "\n" not in text
    assert "tok1d prefetch encoder_init=mae" in text and "encoder_checkpoint=PATH" in text
    assert "has run" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            dict(encoder_init="mae", encoder_size="B"),
            "model.safetensors of timm/vit_base_patch16_224.mae cannot",
        ),
        (
            dict(encoder_init="depth_anything_v2", encoder_size="S"),
            "depth_anything_v2_vits.pth of depth-anything/",
        ),
        (dict(encoder_init="mae", encoder_size="S"), "in no size S: type encoder_size=B or L"),
        (
            dict(encoder_init="dinov2", encoder_size="B", encoder_checkpoint="no.pth"),
            "there is no file no.pth",
        ),
        (
            dict(encoder_init="random", encoder_checkpoint="no.pth"),
            "would not be used by encoder_init=random",
        ),
    ],
)
def test_without_its_weights_a_tokenizer_does_not_start(params, said, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = TokenizerConfig(**{k: v for k, v in params.items() if k != "encoder_checkpoint"})
    with pytest.raises(ConfigError) as caught:
        load_pretrained_encoder(
            Encoder(config), config, StartConfig(encoder_checkpoint=params.get("encoder_checkpoint", ""))
        )
    text = str(caught.value)
    assert said in text and "\n" not in text
    if "cannot" in text:
        assert (
            f"tok1d prefetch encoder_init={params['encoder_init']}" in text
            and "encoder_checkpoint=PATH" in text
        )


def test_a_run_without_its_weights_stops_before_images_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(ENV, "HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(ENV, "HF_HOME", str(tmp_path / "hub"))
    result = tok1d_run("train", tmp_path / "out", encoder_init="mae", encoder_size="B")
    assert result.returncode == 1 and "tok1d prefetch encoder_init=mae encoder_size=B" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    folder = tmp_path / "out" / "runs" / "quickstart"
    assert not (tmp_path / "out" / ".cache").exists() and not (folder / "metrics.jsonl").exists()


def test_prefetch_takes_parameter_files_and_honours_offline(tmp_path):
    path, _ = save_upstream("dinov2", tmp_path, **NANO)
    (tmp_path / "base.yaml").write_text(f"encoder_size: nano\nencoder_weights: {path}\n")
    (tmp_path / "a.yaml").write_text("base: base.yaml\nencoder_init: dinov2\n")
    (tmp_path / "b.yaml").write_text("encoder_init: dino\nencoder_size: B\n")
    prefetch = [sys.executable, "-m", "tok1d.cli", "prefetch"]
    env = ENV | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    kept = dict(cwd=REPO, env=env, capture_output=True, text=True)
    here = subprocess.run([*prefetch, str(tmp_path / "a.yaml")], **kept)
    assert here.returncode == 0 and "1 pretrained files are on this machine" in here.stdout, here.stderr
    away = subprocess.run([*prefetch, str(tmp_path / "b.yaml")], **kept)
    assert away.returncode == 1 and "vit_base_patch16_224.dino cannot be fetched" in away.stderr


def test_a_file_in_the_hubs_cache_is_found_offline_with_its_commit(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--timm--vit_base_patch16_224.mae"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    save_file({"x": torch.zeros(1)}, repository / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    path, source = locate(TokenizerConfig(encoder_init="mae"), StartConfig())
    assert path.is_file() and source == f"timm/vit_base_patch16_224.mae@{commit}/model.safetensors"


def test_without_a_way_to_the_hub_a_file_is_looked_for_on_this_machine_alone(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert reachable(endpoint)
    assert not reachable(endpoint)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    with pytest.raises(LocalEntryNotFoundError, match="outgoing traffic has been disabled"):
        hub_file("timm/vit_base_patch16_224.mae", "model.safetensors")
