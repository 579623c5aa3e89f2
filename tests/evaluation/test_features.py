"""Extractors compute what their own libraries compute; without their files there is one sentence."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from degraded import jpeg, squares, stacked
from torch_fidelity import calculate_metrics
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from tok1d.config.fields import ConfigError
from tok1d.evaluation.metrics.distances import frechet
from tok1d.evaluation.metrics.features import Extractor, FeatureStore, build_extractor, extractor_weights


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def extractor(real_weights) -> Extractor:
    return build_extractor("inception", str(real_weights / "inception_fid.pth"))


# ------------------------------------------------------------------------------ the same numbers as others


def test_fid_is_that_of_torch_fidelity_from_files(extractor, frames, real_weights, tmp_path):
    images = squares(frames)
    worse = [jpeg(image, 20) for image in images]
    for folder, found in (("a", images), ("b", worse)):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(found):
            image.save(tmp_path / folder / f"{i}.png")
    theirs = calculate_metrics(
        input1=str(tmp_path / "a"), input2=str(tmp_path / "b"), fid=True, cuda=False, verbose=False,
        feature_extractor_weights_path=str(real_weights / "inception_fid.pth"), save_cpu_ram=True,
        cache=False, batch_size=8,
    )  # fmt: skip
    a, b = extractor(stacked(images)), extractor(stacked(worse))
    assert frechet(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    half = build_extractor("inception", str(real_weights / "inception_fid.pth"), dtype="float16")
    assert half.card["dtype"] == "float16" and not torch.equal(half(stacked(images[:1])), a[:1])
    halves = (half(stacked(few)) for few in (images[:3], worse[:3]))
    assert abs(frechet(*halves) - frechet(a[:3], b[:3])) < 0.1


def test_features_and_distance_are_those_of_torchmetrics(extractor, frames, real_weights):
    """Its resize like TensorFlow's, not its own default: that blurs, and gives another FID."""
    images = stacked(squares(frames)[:2])
    theirs = FrechetInceptionDistance(
        feature_extractor_weights_path=str(real_weights / "inception_fid.pth"), antialias=False
    )
    assert torch.allclose(extractor(images), theirs.inception(images), atol=1e-4)
    a, b = (torch.randn(300, 64, dtype=torch.float64) * scale for scale in (1, 0.8))
    statistics = [x for f in (a, b) for x in (f.mean(0), torch.cov(f.T))]
    assert frechet(a, b) == pytest.approx(_compute_fid(*statistics).item(), rel=1e-6)


@torch.no_grad()
def test_dinov2_is_timms_class_token_at_224_pixels(frames, real_weights):
    file = real_weights / "dinov2_vits14_imgfocus.pth"
    extractor = build_extractor("dinov2", str(file), "S")
    model = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    state = timm.models.vision_transformer.checkpoint_filter_fn(torch.load(file), model)
    model.load_state_dict(state)
    images = stacked(squares(frames)[:2])
    seen = F.interpolate(images.float(), (224, 224), mode="bicubic", antialias=True).clamp(0, 255) / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    theirs = model((seen - mean) / std)
    assert F.cosine_similarity(extractor(images), theirs).min() > 0.99999
    assert extractor.dim == theirs.shape[1] == 384


# ------------------------------------------------------------------------------ what an extractor is


def test_an_extractor_is_frozen_and_says_what_it_is(extractor):
    assert (extractor.name, extractor.dim) == ("inception", 2048)
    assert not extractor.training and not any(p.requires_grad for p in extractor.parameters())
    features = extractor(torch.zeros(1, 3, 32, 48, dtype=torch.uint8))
    assert features.shape == (1, 2048) and features.dtype == torch.float32
    facts = extractor.card
    assert facts["source"].endswith("inception_fid.pth") and len(facts["sha256"]) == 64
    assert "torch-fidelity" in facts["library"] and "299 px" in facts["input"]
    assert facts["dtype"] == "float32"


def test_building_one_leaves_random_numbers_alone(real_weights):
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    build_extractor("inception", str(real_weights / "inception_fid.pth"))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("name", "command", "parameter"),
    [
        ("inception", "tok1d prefetch metrics=rfid", "inception_checkpoint=PATH"),
        ("dinov2", "tok1d prefetch dino_size=S metrics=frechet_dinov2", "dino_checkpoint=PATH"),
    ],
)
def test_without_a_file_or_with_a_wrong_one_it_is_one_sentence(
    name, command, parameter, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.save({"a": torch.zeros(1)}, tmp_path / "foreign.pth")
    (tmp_path / "damaged.pth").write_bytes(b"PK")
    for file, said in (
        ("", "cannot be fetched"),
        (tmp_path / "none.pth", "there is no file"),
        (tmp_path / "damaged.pth", "is refused"),
        (tmp_path / "foreign.pth", "is not for"),
    ):
        with pytest.raises(ConfigError) as caught:
            build_extractor(name, str(file), "S")
        text = str(caught.value)
        assert said in text and command in text and parameter in text and "\n" not in text


def test_prefetch_can_ask_for_the_file(real_weights):
    file = extractor_weights("inception", str(real_weights / "inception_fid.pth"))
    assert file.path == real_weights / "inception_fid.pth" and len(file.sha256) == 64


# ------------------------------------------------------------------------------ kept on disk


def test_features_are_kept_and_found_again(tmp_path):
    facts = {"data_fingerprint": "fingerprint", "count": 5, "extractor": {"dtype": "float32"}}
    store, found = FeatureStore(tmp_path / "new", 3, facts), torch.arange(15.0).view(5, 3)
    assert not store.complete
    with store:
        store.append(found[:2])
        assert not store.complete
        store.append(found[2:].double())
    again = FeatureStore(tmp_path / "new", 3, dict(facts))
    assert again.complete and isinstance(again.features, np.memmap)
    assert np.array_equal(again.features, found) and again.features.dtype == np.float32
    for other in (facts | {"count": 4}, facts | {"extractor": facts["extractor"] | {"dtype": "float16"}}):
        assert not FeatureStore(tmp_path / "new", 3, other).complete


def test_half_a_file_is_none(tmp_path):
    store = FeatureStore(tmp_path, 3, {"count": 5})
    with pytest.raises(KeyboardInterrupt), store:
        store.append(torch.zeros(2, 3))
        raise KeyboardInterrupt
    assert not store.complete and not list(tmp_path.iterdir())
