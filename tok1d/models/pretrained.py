"""From a checkpoint's tensors to the encoder's: names, merged projections, resampled positions and patches.

Every tensor of the file and of the network ends up in one row of the result, with the reason for whatever was
not simply copied; nothing is dropped in silence.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

HF_NAMES = [  # transformers' Dinov2 (as in Depth-Anything-V2-*-hf) -> DINOv2's own
    (r"^backbone\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.query\.", ".attn.q."),
    (r"\.attention\.attention\.key\.", ".attn.k."),
    (r"\.attention\.attention\.value\.", ".attn.v."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
]
DROPPED = {  # what a backbone's file may hold beside the encoder
    "mask_token": "used only while it was pretrained",
    "depth_head.": "depth head, not part of the encoder",
    "neck.": "depth head, not part of the encoder",
    "head.": "head of its own task, not part of the encoder",
    "head_dist.": "head of its own task, not part of the encoder",
    "fc_norm.": "norm of its own task's head",
    "attn_pool.": "pooling of its own task, not part of the encoder",
    "decoder": "decoder of its own task, not part of the encoder",
}


class Row(NamedTuple):
    name: str  # in our network; in the file, for what is dropped or unexpected
    status: str  # loaded, resampled, dropped; or missing, unexpected, wrong shape: these stop the run
    reason: str


class Converted(NamedTuple):
    state: dict[str, Tensor]  # fits the network
    named: dict[str, Tensor]  # the network's names, the file's shapes
    rows: list[Row]

    @property
    def unexplained(self) -> list[Row]:
        return [row for row in self.rows if row.status in ("missing", "unexpected", "wrong shape")]


def convert(file: dict[str, Tensor], vit: nn.Module) -> Converted:
    """Sort a file's tensors into the network `vit`, resampling positions and patch kernel to its grid."""
    own = vit.state_dict()
    named, rows, notes = rename(file, own)
    state = {}
    for name, tensor in named.items():
        if name not in own:
            rows.append(Row(name, "unexpected", f"{shape(tensor)}: the network has no such tensor"))
            continue
        fitted, status, reason = fit(name, tensor, vit)
        reason = "; ".join(filter(None, [notes.get(name, ""), reason]))
        rows.append(Row(name, status, reason))
        if status != "wrong shape":
            state[name] = fitted
    rows += [
        Row(name, "missing", f"{shape(t)}: not in the file") for name, t in own.items() if name not in named
    ]
    return Converted(state, named, rows)


def rename(
    file: dict[str, Tensor], own: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[Row], dict[str, str]]:
    """The encoder's tensors under timm's names; rows for what is dropped; notes for what was put together."""
    named, rows, notes = {}, [], {}
    depth = any(name.startswith("pretrained.") for name in file)  # Depth-Anything's own .pth
    hf = any("embeddings.patch_embeddings." in name for name in file)
    for name, tensor in file.items():
        reason = next((why for start, why in DROPPED.items() if name.startswith(start)), None)
        ours = name.removeprefix("pretrained.") if depth else name
        for old, new in HF_NAMES if hf else ():
            ours = re.sub(old, new, ours)
        if (depth or hf) and name.startswith("head."):
            reason = DROPPED["neck."]
        if ours == "mask_token":
            reason = DROPPED["mask_token"]
        if ours.startswith("fc_norm.") and ours[3:] in own and ours[3:] not in file:
            ours, reason = ours[3:], None  # fc_norm of a model that averages its patches is its last norm
            notes[ours] = f"renamed from {name}"
        if reason and ours not in own:
            rows.append(Row(name, "dropped", reason))
        else:
            named[ours] = tensor
    for name in [name for name in named if ".attn.q." in name]:
        parts = [name.replace(".q.", f".{letter}.") for letter in "qkv"]
        if all(part in named for part in parts):
            merged = name.replace(".q.", ".qkv.")
            named[merged] = torch.cat([named.pop(part) for part in parts])
            notes[merged] = "query, key and value put together"
    if "register_tokens" in named and "reg_token" in own:  # DINOv2's own file: its class token has a position
        position = named["pos_embed"][:, :1]
        named["reg_token"] = named.pop("register_tokens")
        named["cls_token"] = named["cls_token"] + position
        named["pos_embed"] = named["pos_embed"][:, 1:]
        notes |= {"reg_token": "renamed from register_tokens", "cls_token": "its position added"}
    return named, rows, notes


def fit(name: str, tensor: Tensor, vit: nn.Module) -> tuple[Tensor, str, str]:
    """The tensor in the network's shape, its status and the reason.

    Patch kernels are resampled by the pseudo-inverse of resizing (FlexiViT, arXiv:2212.08013), positions by
    antialiased bicubic, both as timm does it; the class token's own position is kept.
    """
    want = vit.state_dict()[name].shape
    tensor = tensor.float()
    if name == "patch_embed.proj.weight" and tensor.ndim == 4 and tensor.shape[:2] == want[:2]:
        if tensor.shape == want:
            return tensor, "loaded", ""
        resampled = resample_patch_embed(tensor, list(want[2:]))
        return resampled, "resampled", f"patch {tensor.shape[-1]} to {want[-1]} by pseudo-inverse"
    if name == "pos_embed" and tensor.ndim == 3 and tensor.shape[2] == want[2]:
        grid = vit.patch_embed.grid_size
        prefix = want[1] - grid[0] * grid[1]
        side = math.isqrt(max(0, tensor.shape[1] - prefix))
        if side**2 == tensor.shape[1] - prefix and (side, side) != tuple(grid):
            resampled = resample_abs_pos_embed(tensor, list(grid), [side, side], prefix)
            kept = ", the class token's kept" if prefix else ""
            return (
                resampled,
                "resampled",
                f"{side}x{side} to {grid[0]}x{grid[1]} by antialiased bicubic{kept}",
            )
    if tensor.shape != want:
        return tensor, "wrong shape", f"{shape(tensor)} in the file, not {list(want)}"
    return tensor, "loaded", ""


def shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
