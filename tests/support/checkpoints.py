"""Checkpoints in the upstream formats, made by the upstream libraries themselves with random weights."""

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

UPSTREAM = {  # timm's names of the reference's checkpoints; Depth-Anything is DINOv2 with a depth head
    "mae": "vit_base_patch16_224.mae",
    "clip": "vit_base_patch16_clip_224.dfn2b",
    "dino": "vit_base_patch16_224.dino",
    "dinov2": "vit_base_patch14_dinov2.lvd142m",
    "depth_anything_v2": "vit_base_patch14_dinov2.lvd142m",
}
NANO = dict(embed_dim=128, depth=2, num_heads=4)


def upstream_model(init: str, **changes) -> nn.Module:
    """timm's model of this name at its own grid, every tensor random: also biases, norms and LayerScale."""
    torch.manual_seed(len(init))
    model = timm.create_model(UPSTREAM[init], **changes).eval()
    randomize(model)
    return model


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    """No tensor at 0 or 1, where a missing one would go unnoticed."""
    for name, p in model.named_parameters():
        if p.ndim < 2:
            p.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
        elif "pos_embed" in name or "position" in name or "token" in name:
            p.normal_(0, 0.5)


def save_upstream(init: str, folder: Path, **changes) -> tuple[Path, nn.Module]:
    """The file that upstream publishes, and the model it came from."""
    model = upstream_model(init, **changes)
    if init == "depth_anything_v2":
        path = folder / "depth_anything_v2_vitb.pth"
        state = {f"pretrained.{k}": v for k, v in model.state_dict().items()}
        state["pretrained.mask_token"] = torch.zeros(1, model.embed_dim)
        state |= {f"depth_head.{k}": v for k, v in depth_head().state_dict().items()}
        torch.save(state, path)
        return path, model
    path = folder / f"{init}.safetensors"
    save_file(model.state_dict(), path)
    return path, model


def depth_head() -> nn.Module:
    """Some of Depth-Anything's head by its own names."""
    head = nn.Module()
    head.projects = nn.ModuleList(nn.Conv2d(8, c, 1) for c in (4, 8))
    head.scratch = nn.Module()
    head.scratch.output_conv1 = nn.Conv2d(8, 4, 3)
    return head
