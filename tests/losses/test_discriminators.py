"""What the adversarial loss relies on: shapes, no batch statistics, and networks that learn to tell."""

import copy
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from checkpoints import randomize
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms.functional import to_tensor

from tok1d.config.fields import ConfigError
from tok1d.config.schema import LossConfig
from tok1d.data.toy_roads.draw import draw_scene
from tok1d.losses.adversarial import PatchGAN, build_discriminator


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def scenes(count: int, side: int) -> torch.Tensor:
    return torch.stack([to_tensor(draw_scene(i, side)) for i in range(count)])


@pytest.fixture(scope="module")
def dino_file(tmp_path_factory) -> Path:
    """A DINO ViT-S in timm's published format, with random weights."""
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224.dino", num_classes=0)
    randomize(model)
    path = tmp_path_factory.mktemp("dino") / "model.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture(params=["patchgan", "features"])
def net(request, dino_file) -> nn.Module:
    return build_discriminator(
        LossConfig(discriminator=request.param, discriminator_checkpoint=str(dino_file))
    )


def blurred(images: torch.Tensor) -> torch.Tensor:
    return F.interpolate(F.avg_pool2d(images, 4), scale_factor=4.0, mode="bilinear")


# --------------------------------------------------------------------------------------------------- both


@torch.no_grad()
def test_no_image_knows_of_the_others_in_its_batch(net):
    """Else two processes would not compute what one does; and no layer counts what it has seen."""
    net.train()
    images = scenes(2, 32)
    if not isinstance(net, PatchGAN):
        net.heads.eval()  # spectral norm refines its estimate in train mode, the same in every process
    assert torch.allclose(net(images)[:1], net(images[:1]), atol=1e-5)
    assert not any("BatchNorm" in type(module).__name__ for module in net.modules())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_reach_every_weight_and_the_images(net, precision):
    """In mixed precision too, where a reconstruction is bfloat16."""
    images = scenes(1, 32).to(precision).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = net(images)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert images.grad.abs().max() > 0 and images.grad.isfinite().all()
    assert all(p.grad is not None for p in net.parameters())


@torch.no_grad()
def test_saved_and_loaded_is_the_same(net):
    """A checkpoint holds what it learns, spectral norm's estimates included, and not the frozen ViT."""
    net.train()(scenes(1, 32))
    state = net.state_dict()
    assert sum(t.numel() for t in state.values()) < 12e6 and not any("vit" in name for name in state)
    other = copy.deepcopy(net)
    for p in [*other.parameters(), *other.buffers()]:
        p.zero_()
    other.load_state_dict(state)
    assert torch.equal(other(scenes(1, 32)), net(scenes(1, 32)))


# ----------------------------------------------------------------------------------------------- PatchGAN


def test_patchgan_is_the_seeds():
    """Channels, kernels and strides of VQGAN's, at its 256 px: 30 x 30 logits of 70 x 70 pixels each."""
    net = build_discriminator(LossConfig())
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64, 128, 256, 512, 1]
    assert [c.stride[0] for c in convs] == [2, 2, 2, 1, 1] and {c.kernel_size for c in convs} == {(4, 4)}
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    assert net(images).shape == (1, 1, 30, 30)
    for m in net.modules():  # without norms, which see the whole image
        if isinstance(m, nn.GroupNorm):
            m.forward = lambda x: x
    (seen,) = torch.autograd.grad(net(images)[0, 0, 15, 15], images)
    rows = seen.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


@pytest.mark.parametrize("side", [8, 16, 24, 48])
def test_patchgan_takes_any_size(side):
    assert PatchGAN()(torch.rand(2, 3, side, side)).numel() >= 2


def test_patchgan_learns_to_tell_blurred_from_sharp():
    net = PatchGAN()
    optimizer = torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.9))
    real = scenes(8, 32)
    for _ in range(30):
        loss = F.relu(1 - net(real)).mean() + F.relu(1 + net(blurred(real))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = scenes(16, 32)[8:]
    with torch.no_grad():
        assert net(unseen).mean() > net(blurred(unseen)).mean() + 0.5


# ----------------------------------------------------------------------------------------- heads on features


@torch.no_grad()
def test_features_are_timms_with_dinos_normalisation(dino_file):
    net = build_discriminator(LossConfig(discriminator="features", discriminator_checkpoint=str(dino_file)))
    library = timm.create_model("vit_small_patch16_224.dino", num_classes=0)
    assert timm.models.load_checkpoint(library, str(dino_file)) is not None
    images = scenes(1, 224)
    mean, std = (torch.tensor(library.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    want = library.eval().get_intermediate_layers((images - mean) / std, n=[2, 5, 8, 11])
    got = net.taps(images)
    assert len(got) == len(want) == 4
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(got, want, strict=True))
    assert net(images).shape == (1, 4 * 196)
    assert net(scenes(1, 40)).shape == (1, 4 * 196), "smaller images are enlarged"


def test_the_vit_is_frozen_in_train_mode_too(dino_file):
    net = build_discriminator(LossConfig(discriminator="features", discriminator_checkpoint=str(dino_file)))
    net.train()
    vit = net.taps.net.encoder
    assert not vit.training and not any(p.requires_grad for p in vit.parameters())
    assert {name.split(".")[0] for name, _ in net.named_parameters()} == {"heads"}
    net(scenes(1, 32)).sum().backward()
    assert all(p.grad is None for p in vit.parameters())


def test_which_dino_it_is_and_what_to_type_without(dino_file, tmp_path, monkeypatch):
    config = LossConfig(discriminator="features", discriminator_checkpoint=str(dino_file))
    facts = build_discriminator(config).provenance
    assert facts["source"] == str(dino_file) and len(facts["sha256"]) == 64
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        build_discriminator(LossConfig(discriminator="features"))
    text = str(caught.value)
    assert "timm/vit_small_patch16_224.dino cannot be fetched" in text and "\n" not in text
    assert "tok1d prefetch discriminator=features adversarial_weight=1" in text
    assert "discriminator_checkpoint=PATH" in text
