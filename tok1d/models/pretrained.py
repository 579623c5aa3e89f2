"""From a checkpoint's tensors to the encoder's: names, merged projections, resampled positions and patches.

Every tensor of the file and of the network ends up in one row of the result, with the reason for whatever was
not simply copied; nothing is dropped in silence.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn

from tok1d.config.fields import ConfigError
from tok1d.config.registry import TIMM, timm_name
from tok1d.config.schema import StartConfig, TokenizerConfig
from tok1d.models.encoder import Encoder
from tok1d.models.vit import VIT_SIZES, ViT, build_vit, statistics_of, timm_vit
from tok1d.models.weights import ENCODER, ParamNames, prefetch_command, read_weights

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


def convert(file: dict[str, Tensor], vit: ViT) -> Converted:
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


def fit(name: str, tensor: Tensor, vit: ViT) -> tuple[Tensor, str, str]:
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


LEAST_COSINE = 0.999  # with timm's own forward pass, in float32


def load_pretrained_encoder(
    encoder: Encoder,
    tokenizer: TokenizerConfig,
    start: StartConfig,
    proven: dict[str, Any] | None = None,
    names: ParamNames = ENCODER,
) -> dict[str, Any]:
    """Fill `encoder` with the pretrained weights it is to start from, freeze what is to stay, and report.

    `proven` is a report that this run wrote before: of the same file, it is returned, and the features are
    not compared again. `names` are those of the parameters that messages name: a loss's backbone is read like
    an encoder. Random choices elsewhere are not disturbed. Raises `ConfigError` if a file cannot be had or
    does not fit, or if the features differ from timm's own.
    """
    encoder.freeze(start.encoder_freeze)
    report: dict[str, Any] = {"encoder_init": tokenizer.encoder_init, "encoder_size": tokenizer.encoder_size}
    if tokenizer.encoder_init == "random":
        if start.encoder_checkpoint:
            raise ConfigError(
                f"encoder_checkpoint={start.encoder_checkpoint} would not be used by encoder_init=random: "
                f"type for example encoder_init=dinov2, or leave it out"
            )
        network: dict[str, Any] = {
            "network": tokenizer.random_like or "plain ViT",
            "source": "random",
            "tensors": [],
        }
        return report | network | fairness(tokenizer)
    weights = read_weights(tokenizer, start, names)
    converted = convert(weights.state, encoder.vit)
    check_converted(converted, tokenizer, start, weights.source, names)
    encoder.vit.load_state_dict(converted.state)
    if proven and proven.get("sha256") == weights.sha256:
        return proven
    return report | {
        "network": timm_name(tokenizer.encoder_init, tokenizer.encoder_size),
        "source": weights.source, "sha256": weights.sha256,
        "tensors": [row._asdict() for row in converted.rows],
        "cosine": compare_features(encoder, tokenizer, converted, weights.source, names),
    } | fairness(tokenizer)  # fmt: skip


def check_converted(
    converted: Converted, tokenizer: TokenizerConfig, start: StartConfig, source: str, names: ParamNames
) -> None:
    """Stop for tensors that are missing, unexpected or of another shape."""
    bad = converted.unexplained
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise ConfigError(
            f"{source} is not for {tokenizer.encoder_init} of size {tokenizer.encoder_size} "
            f"({bad[0].name} is {bad[0].status}, {bad[0].reason}{more}): "
            f"type '{prefetch_command(tokenizer, start, names)}' for the right file, "
            f"or give it as {names.weights}=PATH"
        )


@torch.no_grad()
def compare_features(
    encoder: Encoder,
    tokenizer: TokenizerConfig,
    converted: Converted,
    source: str,
    names: ParamNames = ENCODER,
) -> dict[str, float]:
    """Cosine [-1, 1] of our patch features with timm's own model, loaded by timm, on a smooth random
    image.

    The mean over patches, without latent tokens (least over patches too) and beside all K. Raises
    `ConfigError`.
    """
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    side = (tokenizer.image_size, tokenizer.image_size)
    images = F.interpolate(noise, side, mode="bicubic").clamp(0, 1).to(encoder.mean.device)  # [1, 3, H, W]
    theirs = library_features(tokenizer, converted.named, images)
    training = encoder.training
    encoder.eval()
    alone, beside = (
        F.cosine_similarity(encoder.patch_features(images, k), theirs, dim=-1)
        for k in (0, tokenizer.num_latent_tokens)
    )
    encoder.train(training)
    least = alone.min().item()
    if not least >= LEAST_COSINE:
        raise ConfigError(
            f"{source} does not compute what timm computes from it (cosine {least:.4f}): "
            f"choose another {names.init}, or give another file as {names.weights}=PATH"
        )
    return {"patches": alone.mean().item(), "least": least, "beside_latent_tokens": beside.mean().item()}


def library_features(tokenizer: TokenizerConfig, named: dict[str, Tensor], images: Tensor) -> Tensor:
    """timm's model of this name, with the file resampled by timm: images in 0 … 1 -> [B, N, D]."""
    width, depth, heads = VIT_SIZES[tokenizer.encoder_size]
    init = tokenizer.encoder_init
    own = {} if init.startswith(TIMM) else dict(embed_dim=width, depth=depth, num_heads=heads)
    with init_empty_weights(), torch.random.fork_rng(devices=[]):  # no random ones that are replaced at once
        model = timm_vit(timm_name(init, tokenizer.encoder_size), tokenizer, **own)
    eva = isinstance(model, timm.models.eva.Eva)
    library = timm.models.eva if eva else timm.models.vision_transformer
    state = library.checkpoint_filter_fn(dict(named), model)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    model.to(images.device).eval()
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in statistics_of(model))
    return model.forward_features((images - mean) / std)[:, model.num_prefix_tokens :]


def fairness(tokenizer: TokenizerConfig) -> dict[str, Any]:
    """The random baseline that differs in nothing but its weights, and how a plain random encoder differs."""
    like = tokenizer.random_like if tokenizer.encoder_init == "random" else tokenizer.encoder_init
    plain = tokenizer.model_copy(update={"encoder_init": "random", "random_like": ""})
    ours, theirs = anatomy(tokenizer), anatomy(plain)
    differences = [
        f"{part}: {ours.get(part, 'none')}, plain random: {theirs.get(part, 'none')}"
        for part in sorted({*ours, *theirs})
        if ours.get(part) != theirs.get(part)
    ]
    pair = (
        f"encoder_init=random random_like={like}" if like else "any encoder_init that has no part of its own"
    )
    return {"fair_pair": pair, "differences_from_plain_random": differences}


def anatomy(tokenizer: TokenizerConfig) -> dict[str, str]:
    """Every part of the encoder's network, alike blocks together, as name -> shape or value."""
    with torch.device("meta"):
        vit, mean, std = build_vit(tokenizer)
    parts = {re.sub(r"\.\d+\.", ".*.", name): str(list(p.shape)) for name, p in vit.named_parameters()}
    norms = Counter(module.eps for module in vit.modules() if isinstance(module, nn.LayerNorm))
    acts = {type(module).__name__ for module in vit.modules() if "GELU" in type(module).__name__}
    rotary = type(getattr(vit, "rope", None)).__name__.replace("NoneType", "none")
    return parts | {
        "parameters": f"{sum(p.numel() for p in vit.parameters()):,}",
        "blocks": str(len(vit.blocks)),
        "rotary positions": rotary,
        "activation": ", ".join(sorted(acts)),
        "norm eps": ", ".join(map(str, sorted(norms))),
        "image mean, std": f"{mean}, {std}",
    }
