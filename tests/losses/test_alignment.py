"""Alignment: the backbone is what its library computes, stays frozen, and the tokenizer learns from it."""

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from checkpoints import NANO, save_upstream
from torch import nn
from torchvision.transforms.functional import center_crop, pil_to_tensor

from tok1d.config.fields import ConfigError
from tok1d.config.schema import LossConfig, TokenizerConfig
from tok1d.losses.alignment import build_alignment
from tok1d.losses.frozen import loss_checkpoints
from tok1d.models.tokenizer import Tokenizer

TINY = dict(
    image_size=32, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=8, elastic=False
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def nano_file(tmp_path_factory) -> Path:
    """A DINOv2 of size nano with random weights."""
    return save_upstream("dinov2", tmp_path_factory.mktemp("dinov2"), **NANO)[0]


def nano(align_features: str, file: Path, **changes) -> tuple[Tokenizer, nn.Module]:
    tokenizer = Tokenizer(TokenizerConfig(**TINY | changes))
    config = LossConfig(align_features=align_features, align_size="nano", align_checkpoint=str(file))
    return tokenizer, build_alignment(config, tokenizer)


def photos(frames, side: int) -> torch.Tensor:
    """[B, 3, side, side] in 0 … 1 from the middle of real frames."""
    tensors = [pil_to_tensor(frame).float() / 255 for frame in frames]
    square = [center_crop(t, min(t.shape[1:]))[None] for t in tensors]
    return torch.cat([F.interpolate(t, (side, side), mode="area") for t in square])


# ------------------------------------------------------------------------------------------ the real DINOv2


@torch.no_grad()
def test_the_backbone_is_its_librarys_at_its_own_patch_size(real_weights, frames):
    """Fed 224 px in patches of 14, which are the tokenizer's 256 px in patches of 16."""
    file = real_weights / "dinov2_vits14_imgfocus.pth"
    tokenizer = Tokenizer(TokenizerConfig(**TINY | dict(image_size=256, encoder="vit", patch_size=16)))
    config = LossConfig(align_size="S", align_checkpoint=str(file), align_weight=1)
    alignment = build_alignment(config, tokenizer)
    assert alignment.provenance["name"] == "vit_small_patch14_dinov2" and alignment.provenance[
        "source"
    ] == str(file)
    assert alignment.provenance["sha256"] == loss_checkpoints(config)[0].sha256

    native = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    state = torch.load(file, weights_only=True)
    native.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, native))
    images = photos(frames[:2], 256)
    small = F.interpolate(images, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    theirs = native.forward_features((small - mean.view(3, 1, 1)) / std.view(3, 1, 1))[:, 1:]
    assert (alignment.backbone(images) - theirs).abs().max() < 1e-3 * theirs.abs().max()


@pytest.mark.parametrize("align_features", ["decoder", "tokens"])
def test_a_tokenizer_learns_what_the_backbone_knows(align_features, real_weights, frames):
    """The head alone can tell only what patches have in common; with the tokenizer it learns each image's."""
    images = photos(frames[:3], 32)
    start = 0.0
    losses = {}
    for learns in ("head alone", "both"):
        torch.manual_seed(0)
        tokenizer = Tokenizer(TokenizerConfig(**TINY)).train()
        config = LossConfig(
            align_features=align_features,
            align_size="S",
            align_checkpoint=str(real_weights / "dinov2_vits14_imgfocus.pth"),
        )
        alignment = build_alignment(config, tokenizer)
        moving = [*alignment.parameters(), *(tokenizer.parameters() if learns == "both" else [])]
        optimizer = torch.optim.AdamW(moving, 5e-4)
        for step in range(20):
            loss = alignment(tokenizer(images), images)
            start = loss.item() if step == 0 else start
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[learns] = loss.item()
    print(f"\n{align_features}: {start:.3f} -> {losses}")
    assert losses["both"] < 0.6 * start and losses["both"] < 0.9 * losses["head alone"]


# --------------------------------------------------------------------------------------- any, at size nano


@pytest.mark.parametrize("align_features", ["decoder", "tokens"])
@pytest.mark.parametrize("head", ["patch", "cnn"])
def test_gradients_reach_the_encoder_and_the_head_but_not_the_backbone(align_features, head, nano_file):
    cnn = dict(decoder_head=head, cnn_channels=32, cnn_multipliers=(1, 1, 1, 2))
    tokenizer, alignment = nano(align_features, nano_file, **cnn)
    images = torch.rand(2, 3, 32, 32)
    loss = alignment(tokenizer(images), images)
    assert loss.ndim == 0 and 0 < loss < 2
    loss.backward()
    assert tokenizer.encoder.latents.grad.abs().max() > 0
    assert tokenizer.to_codes.weight.grad.abs().max() > 0
    assert all(p.grad.abs().max() > 0 for p in alignment.parameters())
    vit = alignment.backbone.net.encoder
    assert not any(p.requires_grad for p in vit.parameters())
    assert not alignment.train().backbone.net.training and not any("vit" in n for n in alignment.state_dict())


def test_a_prefix_of_tokens_can_be_aligned(nano_file):
    tokenizer, alignment = nano("tokens", nano_file, elastic=True)
    images = torch.rand(2, 3, 32, 32)
    for count in (1, 8):
        assert alignment(tokenizer(images, count), images).isfinite()


@torch.no_grad()
def test_mean_over_the_batch(nano_file):
    """So the mean over processes is the mean over the global batch."""
    tokenizer, alignment = nano("decoder", nano_file)
    images = torch.rand(4, 3, 32, 32)
    parts = [alignment(tokenizer(part), part) for part in images.split(2)]
    assert alignment(tokenizer(images), images).item() == pytest.approx(sum(parts).item() / 2, rel=1e-5)


def test_building_the_backbone_leaves_the_random_numbers_of_others(nano_file):
    heads = []
    for file in (nano_file, nano_file):
        torch.manual_seed(3)
        tokenizer = Tokenizer(TokenizerConfig(**TINY))
        mark = torch.rand(1)
        config = LossConfig(align_size="nano", align_checkpoint=str(file))
        heads.append((mark, build_alignment(config, tokenizer).head[0].weight))
    assert torch.equal(heads[0][0], heads[1][0]) and torch.equal(heads[0][1], heads[1][1])
    torch.manual_seed(3)
    Tokenizer(TokenizerConfig(**TINY)), torch.rand(1)
    assert torch.equal(nn.Linear(128, 2048).weight, heads[0][1])


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (dict(), "vit_base_patch14_dinov2.lvd142m cannot be fetched"),
        (
            dict(align_to="mae", align_size="S"),
            "align_to=mae was published in no size S: type align_size=B or L",
        ),
        (dict(align_checkpoint="no.pth"), "there is no file no.pth"),
        (dict(align_to="mae", align_size="nano", align_checkpoint="nano"), "is not for mae of size nano"),
    ],
)
def test_a_backbone_that_cannot_be_had_is_one_sentence(params, said, nano_file, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    if params.get("align_checkpoint") == "nano":
        params = params | dict(align_checkpoint=str(nano_file))
    with pytest.raises(ConfigError) as caught:
        build_alignment(LossConfig(**params), Tokenizer(TokenizerConfig(**TINY)))
    text = str(caught.value)
    assert said in text and "\n" not in text and "encoder_" not in text
    assert "align_checkpoint=PATH" in text


def test_random_is_nothing_to_align_to():
    with pytest.raises(ValueError, match="must be a pretrained backbone"):
        LossConfig(align_to="random")
