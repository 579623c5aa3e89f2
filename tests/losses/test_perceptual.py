"""Perceptual losses: torchmetrics' number, honest names, always in eval mode; one sentence without a file."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from checkpoints import randomize
from safetensors.torch import load_file, save_file
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.transforms.functional import center_crop, gaussian_blur, pil_to_tensor
from workbench import ENV, REPO

from tok1d.config.fields import ConfigError
from tok1d.config.schema import LossConfig
from tok1d.losses.frozen import VGG16_SHA256, loss_checkpoints
from tok1d.losses.perceptual import VGG16, build_perceptual

CONVNET = "timm:test_convnext"  # of 0.3 million parameters


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory) -> Path:
    """VGG16 with random weights, in the format that torchvision publishes, a bit of classifier included."""
    torch.manual_seed(1)
    state = {f"features.{k}": v for k, v in VGG16().layers.state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


@pytest.fixture(scope="module")
def convnet_file(tmp_path_factory) -> Path:
    """timm's network with random weights, in timm's format."""
    torch.manual_seed(2)
    net = timm.create_model(CONVNET.removeprefix("timm:"))
    randomize(net)
    path = tmp_path_factory.mktemp("convnet") / "model.safetensors"
    save_file(net.state_dict(), path)
    return path


@pytest.fixture(params=["lpips", "vgg", CONVNET])
def loss(request, vgg_file, convnet_file) -> nn.Module:
    file = convnet_file if request.param == CONVNET else vgg_file
    return build_perceptual(LossConfig(perceptual=request.param, perceptual_checkpoint=str(file)))


def torchmetrics_lpips(file: Path) -> nn.Module:
    """torchmetrics' own LPIPS with the VGG16 of a file, in eval mode."""
    net = _LPIPS(net="vgg", pnet_rand=True).eval()
    own = {k: v for k, v in net.net.named_parameters()}
    for name, tensor in torch.load(file, weights_only=True).items():
        for ours, p in own.items():  # slice3.10.weight
            if name.removeprefix("features.") == ours.split(".", 1)[1]:
                p.data.copy_(tensor)
    return net


# ------------------------------------------------------------------------------------------- values


@torch.no_grad()
def test_lpips_is_torchmetrics_number(vgg_file):
    a, b = torch.rand(2, 3, 48, 40), torch.rand(2, 3, 48, 40)
    ours = build_perceptual(LossConfig(perceptual_checkpoint=str(vgg_file)))
    theirs = torchmetrics_lpips(vgg_file)
    want = theirs(a, b, normalize=True).mean()
    assert ours(a, b).item() == pytest.approx(want.item(), rel=1e-5)
    theirs.train()  # the reference's defect 9: its logger did that, and dropout changed the loss from then on
    assert abs(theirs(a, b, normalize=True).mean() - want) > 1e-3 * want


def test_distance_of_anything_to_itself_is_0_and_gradients_are_finite(loss):
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    distance = loss(images, images.detach())
    distance.backward()
    assert distance.item() == 0 and images.grad.isfinite().all()
    flat = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    loss(flat, torch.rand(1, 3, 32, 32)).backward()
    assert flat.grad.isfinite().all() and flat.grad.abs().max() > 0


def test_mixed_precision_is_close(loss):
    a, b = torch.rand(2, 2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(a.bfloat16(), b)
    assert mixed.dtype == torch.float32 and mixed.item() == pytest.approx(loss(a, b).item(), rel=0.02)


@pytest.mark.parametrize("side", [8, 16, 40])
def test_any_size(loss, side):
    assert loss(torch.rand(1, 3, side, side), torch.rand(1, 3, side, side)) > 0


def test_mean_over_the_batch(loss):
    """So the mean over processes is the mean over the global batch."""
    a, b = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32)
    parts = [loss(a[:2], b[:2]), loss(a[2:], b[2:])]
    assert loss(a, b).item() == pytest.approx(sum(parts).item() / 2, rel=1e-5)


@pytest.mark.parametrize("perceptual", ["lpips", "vgg"])
@torch.no_grad()
def test_real_weights_on_real_frames(perceptual, real_weights, frames):
    """It grows with blur and with noise, and sees blur where the pixels hardly change."""
    file = real_weights / "vgg16_features_keras.pth"
    loss = build_perceptual(LossConfig(perceptual=perceptual, perceptual_checkpoint=str(file)))
    frame = pil_to_tensor(frames[0]).float() / 255
    image = F.interpolate(center_crop(frame, min(frame.shape[1:]))[None], (128, 128), mode="area")
    blurred = [loss(gaussian_blur(image, 4 * round(s) + 5, s), image).item() for s in (0.5, 1.0, 2.0, 4.0)]
    noise = torch.randn(image.shape)
    noisy = [loss((image + s * noise).clamp(0, 1), image).item() for s in (0.02, 0.05, 0.1, 0.2)]
    print(f"\n{perceptual}: blur {blurred}, noise {noisy}")
    assert blurred == sorted(blurred) and blurred[-1] > 4 * blurred[0] > 0
    assert noisy == sorted(noisy) and noisy[-1] > 4 * noisy[0] > 0
    brighter = (image + (gaussian_blur(image, 13, 2.0) - image).square().mean().sqrt()).clamp(0, 1)
    assert loss(brighter, image) < blurred[2], "as many dB, but only the blur destroys things"


# ------------------------------------------------------------------------ defect 9: frozen, whatever happens


class Parent(nn.Module):
    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss


def test_train_mode_of_the_parent_changes_nothing(convnet_file):
    """With dropout in the network, as in the reference's LPIPS; the defect put back does change the value."""
    loss = build_perceptual(LossConfig(perceptual=CONVNET, perceptual_checkpoint=str(convnet_file)))
    net = loss.features.net
    net.net.stages[0] = nn.Sequential(net.net.stages[0], nn.Dropout(0.5)).eval()
    a, b = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    parent, before = Parent(loss).eval(), loss(a, b)
    parent.train()
    assert not any(module.training for module in net.modules())
    assert torch.equal(loss(a, b), before)
    net.train()
    assert not torch.equal(loss(a, b), before)


def test_it_has_nothing_to_learn_and_nothing_to_save(loss):
    parent = Parent(loss)
    assert not list(parent.parameters()) and not parent.state_dict()
    loss(torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32)).backward()
    assert all(p.grad is None and not p.requires_grad for p in loss.features.net.parameters())


def test_building_it_leaves_the_random_numbers_of_others(vgg_file):
    before = torch.get_rng_state()
    build_perceptual(LossConfig(perceptual_checkpoint=str(vgg_file)))
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------------------------- files and names


def test_another_vgg16_is_not_called_lpips(vgg_file, monkeypatch):
    config = LossConfig(perceptual_checkpoint=str(vgg_file), perceptual_weight=1)
    facts = build_perceptual(config).provenance
    assert facts["name"] == "VGG16 distance with LPIPS's linear layers, not LPIPS"
    assert facts["source"] == str(vgg_file) and facts["sha256"] == loss_checkpoints(config)[0].sha256
    assert VGG16_SHA256 == "397923af"
    monkeypatch.setattr("tok1d.losses.perceptual.VGG16_SHA256", facts["sha256"][:8])
    assert build_perceptual(config).provenance["name"] == "LPIPS (VGG16)"


def test_names_with_and_without_prefix(vgg_file, tmp_path):
    state = {k.removeprefix("features."): v for k, v in torch.load(vgg_file).items() if "classifier" not in k}
    save_file(state, tmp_path / "vgg.safetensors")
    a, b = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    files = (str(vgg_file), str(tmp_path / "vgg.safetensors"))
    first, second = (build_perceptual(LossConfig(perceptual_checkpoint=file))(a, b) for file in files)
    assert torch.equal(first, second)


@torch.no_grad()
def test_a_network_of_timm_is_timms_with_its_own_normalisation(convnet_file):
    loss = build_perceptual(LossConfig(perceptual=CONVNET, perceptual_checkpoint=str(convnet_file)))
    overlay = dict(file=str(convnet_file))
    name = CONVNET.removeprefix("timm:")
    library = timm.create_model(name, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(library.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    want = library.eval()((images - mean) / std)
    got = loss.features(images)
    assert len(got) == len(want) == 4
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("cut", "is damaged or cut short"),
        ("missing layer", "is not for VGG16 (28.bias is missing, 1 in all)"),
        ("shape", "0.weight has another shape"),
        ("away", "there is no file"),
        ("foreign", "is not for VGG16"),
    ],
)
def test_a_bad_file_is_one_sentence(broken, said, vgg_file, convnet_file, tmp_path):
    path, state = tmp_path / "vgg.pth", torch.load(vgg_file)
    if broken == "missing layer":
        del state["features.28.bias"]
    if broken == "shape":
        state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    if broken != "away":
        torch.save(load_file(convnet_file) if broken == "foreign" else state, path)
    if broken == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ConfigError) as caught:
        build_perceptual(LossConfig(perceptual_checkpoint=str(path)))
    text = str(caught.value)
    assert said in text and str(path) in text and "\n" not in text
    assert "tok1d prefetch perceptual=lpips perceptual_weight=1" in text
    assert "perceptual_checkpoint=PATH" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:convnxt_small", "did you mean timm:convnext_small?"),
        ("timm:vit_tiny_patch16_224", "gives no maps at several scales"),
        (CONVNET, "is not for timm:test_convnext"),
        ("timm:test_resnet", "is not for timm:test_resnet"),
    ],
)
def test_a_network_that_cannot_be_had_is_one_sentence(name, said, vgg_file):
    with pytest.raises(ConfigError) as caught:
        build_perceptual(LossConfig(perceptual=name, perceptual_checkpoint=str(vgg_file)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lpips", "timm:convnext_small"])
def test_without_internet_it_is_one_sentence_and_never_random(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        build_perceptual(LossConfig(perceptual=name))
    text = str(caught.value)
    assert "cannot be fetched" in text and "\n" not in text
    assert f"tok1d prefetch perceptual={name} perceptual_weight=1" in text


def test_prefetch_knows_of_it(vgg_file, tmp_path):
    (tmp_path / "a.yaml").write_text(f"perceptual_weight: 1\nperceptual_weights: {vgg_file}\n")
    command = [sys.executable, "-m", "tok1d.cli", "prefetch"]
    env = ENV | {"HF_HUB_OFFLINE": "1", "TORCH_HOME": str(tmp_path)}
    kept = dict(cwd=REPO, env=env, capture_output=True, text=True)
    here = subprocess.run([*command, str(tmp_path / "a.yaml")], **kept)
    assert here.returncode == 0 and "1 pretrained files are on this machine" in here.stdout, here.stderr
    away = subprocess.run([*command, "perceptual_weight=1"], **kept)
    assert away.returncode == 1 and "vgg16-397923af.pth cannot be fetched" in away.stderr
