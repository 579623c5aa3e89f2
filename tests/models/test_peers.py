"""Peers' checkpoints compute here what their authors' code computes, or are refused in one sentence."""

import argparse
import functools
import json

import pytest
import torch
from peers import NAMES, described, golden, save_peer, sketch, write_peer

from tok1d.config.fields import ConfigError
from tok1d.config.peers import INSTALLED, PEERS
from tok1d.config.schema import EvalConfig
from tok1d.evaluation.measured import as_measurable
from tok1d.models.peers import load_peer, prefetch_peer, published_config
from tok1d.models.peers.report import self_test
from tok1d.models.peers.titok import TiTok

FILES = dict(
    zip(NAMES, ("model.safetensors", "tokenizer.bin", "model.safetensors", "pytorch_model.bin"), strict=True)
)


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """`peers(name)`: a checkpoint that was written, and read."""
    folder = tmp_path_factory.mktemp("peers")

    @functools.cache
    def load(name: str) -> TiTok:
        return load_peer(f"peer:{save_peer(folder / name, name, FILES[name])}")

    return load


def images_of(name: str) -> torch.Tensor:
    return golden(name)["images"].float() / 255


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_explained(name, peers):
    report, what = peers(name).report, described(name)
    assert {row["name"] for row in report["tensors"]} == set(what["shapes"])
    assert {row["status"] for row in report["tensors"]} == {"loaded"}
    assert report["legacy"] is what["config"]["model"]["vq_model"].get("is_legacy", True)
    assert report["input_range"] == "0 … 1" and len(report["sha256"]) == 64


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_codes_are_the_golden_ones(name, peers):
    codes, expected = peers(name).encode(images_of(name)), golden(name)
    if "ids" in expected:
        assert codes.shape == expected["ids"].shape
        assert (codes == expected["ids"]).float().mean() >= 0.995
    else:
        assert (codes - expected["mean"][:, :, 0].transpose(1, 2)).abs().max() < 1e-3


LONG = pytest.mark.slow  # a MaskGIT VQGAN takes seconds an image on a core
COUNTS = [
    ("titok-bl64-onestage", 64), ("titok-ll32-vae", 32), ("one-d-piece-s256", 16),
    pytest.param("titok-s128-legacy", 128, marks=LONG), pytest.param("one-d-piece-s256", 1, marks=LONG),
    pytest.param("one-d-piece-s256", 64, marks=LONG), pytest.param("one-d-piece-s256", 256, marks=LONG),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), COUNTS)
@torch.no_grad()
def test_reconstructions_are_the_golden_ones(name, count, peers):
    expected, peer = golden(name), peers(name)
    codes = expected["ids"] if "ids" in expected else expected["mean"][:, :, 0].transpose(1, 2)
    key = f"reconstructions_{count}" if f"reconstructions_{count}" in expected else "reconstructions"
    theirs = expected[key][:1].float()
    ours = peer.decode(codes[:1, :count])
    assert (ours - theirs).abs().max() < 2e-2 * (theirs.max() - theirs.min())


@torch.no_grad()
def test_a_prefix_is_cut_from_the_same_ids(peers):
    peer, images = peers("one-d-piece-s256"), images_of("one-d-piece-s256")[:1]
    assert torch.equal(peer.encode(images, 16), peer.encode(images)[:, :16])
    found = as_measurable(peer, EvalConfig(token_counts=(1, 16, 256))).encode(images)
    assert [at.num_tokens for at in found] == [1, 16, 256] and [at.bits for at in found] == [
        [12.0 * k] for k in (1, 16, 256)
    ]
    assert [at.seconds > 0 for at in found] == [False, False, True]  # it encodes once
    with pytest.raises(ConfigError, match="token_counts=16 is no count of this TiTok: type token_counts=128"):
        as_measurable(peers("titok-s128-legacy"), EvalConfig(token_counts=(16,)))
    with pytest.raises(ValueError, match="num_tokens=16 is no count"):
        peers("titok-s128-legacy").encode(images, 16)


def test_what_a_token_looks_at_is_explained_only_where_it_means_something(peers):
    assert "2 channels of all 256 latent tokens" in peers("one-d-piece-s256").unexplained
    assert not peers("titok-bl64-onestage").unexplained


def test_an_untrained_peer_is_doubted(peers):
    found = self_test(peers("titok-bl64-onestage"), images_of("titok-bl64-onestage"))
    assert found["psnr"] < 15 and "psnr_of_-1_…_1" in found and found["doubt"]


@pytest.mark.parametrize("name", ["titok-b64", "titok-sl256-vq", "titok-bl64-vae", "one-d-piece-l256"])
@torch.no_grad()
def test_published_sizes_have_their_shapes(name):
    """On the meta device: shapes, and what the peers' table of tokens, bits and sizes says."""
    row = PEERS[name]
    with torch.device("meta"):
        peer = TiTok(published_config(row))
        codes = peer.encode(torch.empty(2, 3, 256, 256))
        assert peer.decode(codes).shape == (2, 3, 256, 256)
    assert codes.shape[:2] == (2, row.tokens)
    assert (len(peer.token_counts) > 1) == name.startswith("one-d-piece")


# ------------------------------------------------------------------------------------------------- bad files


class Harmful:
    def __reduce__(self):
        return (print, ("code in a pickle has run",))


def said(path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_peer(f"peer:{path}")
    text = str(caught.value)
    assert "\n" not in text and len(text) < 420
    return text


def test_a_first_stage_lacks_its_pixel_decoder(tmp_path):
    config, state = sketch("titok-s128-legacy")
    config["model"]["vq_model"]["finetune_decoder"] = False
    state = {name: tensor for name, tensor in state.items() if not name.startswith("pixel_")}
    text = said(write_peer(tmp_path, config, state, "titok.bin"))
    assert "first stage" in text and "maskgit-vqgan-imagenet-f16-256.bin of fun-research/TiTok" in text


def test_a_first_stage_is_completed_by_the_file_beside_it(tmp_path, peers):
    what = described("titok-s128-legacy")
    whole = peers("titok-s128-legacy").state_dict()
    first = {n: t for n, t in whole.items() if not n.startswith("pixel_")}
    rest = {n.removeprefix("pixel_"): t for n, t in whole.items() if n.startswith("pixel_")}
    what["config"]["model"]["vq_model"]["finetune_decoder"] = False
    write_peer(
        tmp_path,
        None,
        rest | {"encoder.conv_in.weight": torch.zeros(1)},
        "maskgit-vqgan-imagenet-f16-256.bin",
    )
    peer = load_peer(f"peer:{write_peer(tmp_path, what['config'], first, 'titok.bin')}")
    assert all(torch.equal(t, whole[n]) for n, t in peer.state_dict().items())
    reasons = {row["name"]: (row["status"], row["reason"]) for row in peer.report["tensors"]}
    assert reasons["encoder.conv_in.weight"][0] == "dropped"
    assert "conv_in.weight of maskgit-vqgan" in reasons["pixel_decoder.conv_in.weight"][1]


def test_a_pickled_namespace_is_named(tmp_path):
    config, state = sketch("titok-bl64-onestage")
    write_peer(tmp_path, config, {"model": state, "args": argparse.Namespace(lr=1)}, "checkpoint.pth")
    assert "holds an argparse.Namespace" in said(tmp_path)


def test_a_pickle_with_code_does_not_run(tmp_path, capfd):
    config, state = sketch("titok-bl64-onestage")
    write_peer(tmp_path, config, state | {"more": Harmful()}, "pytorch_model.bin")
    assert "is refused, since it holds code" in said(tmp_path)
    assert "has run" not in capfd.readouterr().out


CONTRADICTIONS = [
    ("titok-bl64-onestage", {"is_legacy": None}, "has no is_legacy"),
    ("titok-bl64-onestage", {"is_legacy": True}, "says is_legacy=True, but the tensors beside it"),
    ("titok-s128-legacy", {"is_legacy": False}, "says is_legacy=False"),
    ("titok-s128-legacy", {"codebook_size": 1024}, "says codebook_size=1024"),
    ("titok-s128-legacy", {"num_latent_tokens": 32}, "says num_latent_tokens=32"),
    ("titok-s128-legacy", {"finetune_decoder": False}, "says finetune_decoder=False"),
    ("titok-ll32-vae", {"quantize_mode": "vq"}, "says quantize_mode=vq"),
    ("titok-ll32-vae", {"token_size": 32}, "says token_size=32"),
    ("one-d-piece-s256", {"vit_enc_model_size": "large"}, "says vit_enc_model_size=large"),
]


@pytest.mark.parametrize(("name", "changes", "expected"), CONTRADICTIONS)
def test_a_config_that_contradicts_the_tensors(name, changes, expected, tmp_path):
    config, state = sketch(name)
    told = config["model"]["vq_model"] | changes
    config["model"]["vq_model"] = {key: value for key, value in told.items() if value is not None}
    assert expected in said(write_peer(tmp_path, config, state))


def test_files_that_are_no_whole_checkpoint(tmp_path):
    config, state = sketch("titok-bl64-onestage")
    folder = write_peer(tmp_path / "parts", config, state)
    assert "encoder.transformer.0.ln_1.weight is missing" in said(folder)
    cut = folder / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1000])
    assert "damaged or cut short" in said(folder)
    assert "there is no config.json" in said(write_peer(tmp_path / "alone", None, state))
    assert "positional_embedding is missing" in said(
        write_peer(tmp_path / "other", config, {"x": torch.zeros(1)})
    )
    (folder / "config.json").write_text("{", encoding="utf-8")
    write_peer(folder, None, state)
    assert "config.json is damaged" in said(folder)
    assert "says nothing of model.vq_model" in said(write_peer(tmp_path / "empty", {}, state))
    text = {"decoder.text_guidance_proj.weight": torch.zeros(512, 768)}
    assert "told a caption" in said(write_peer(tmp_path / "ta", config, state | text))
    (tmp_path / "none").mkdir()
    assert "holds no weights" in said(tmp_path / "none")


def test_a_prefix_a_wrapper_and_a_yaml_beside_are_read(tmp_path, peers):
    what, whole = described("titok-ll32-vae"), peers("titok-ll32-vae").state_dict()
    state = {f"module.{n}": t.half() for n, t in whole.items()} | {"loss.weight": torch.zeros(1)}
    folder = tmp_path / "checkpoint" / "ema_model"
    write_peer(folder, None, {"state_dict": state}, "pytorch_model.bin")
    (tmp_path / "config.yaml").write_text(json.dumps(what["config"]), encoding="utf-8")
    peer = load_peer(f"peer:{folder}")
    reasons = {row["name"]: (row["status"], row["reason"]) for row in peer.report["tensors"]}
    assert reasons["latent_tokens"] == ("loaded", "without its prefix module.; from float16")
    assert reasons["loss.weight"][0] == "dropped"


@pytest.mark.parametrize("name", ["titok-l32", "one-d-piece-l256"])
def test_without_internet_the_files_their_size_and_license_are_named(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for function in (load_peer, prefetch_peer):
        with pytest.raises(ConfigError) as caught:
            function(f"peer:{name}")
        for words in ("config.json and model.safetensors (2.6 GB)", PEERS[name].repository, "Apache-2.0",
                      f"tok1d prefetch peer:{name}", "peer:PATH"):  # fmt: skip
            assert words in str(caught.value)


def test_names_that_are_unknown_or_of_another_package():
    with pytest.raises(ConfigError, match=r"did you mean peer:titok-l32\?"):
        load_peer("peer:titok-l23")
    with pytest.raises(ConfigError, match=r"peer:no/such is not here: type the folder"):
        load_peer("peer:no/such")
    for name, row in INSTALLED.items():
        with pytest.raises(ConfigError) as caught:
            load_peer(f"peer:{name}")
        assert row.license in str(caught.value) and row.install in str(caught.value)
