"""Proof that pretrained weights are loaded: what became of every tensor, and that it computes what it should.

`start_encoder` fills an encoder in and returns the report, a plain dictionary that the run folder keeps as
`load_report.json`: every tensor with its status, source and sha256, the cosine of our patch features with
those of timm's own forward pass, which random baseline is fair, and after two steps which parameters are
trainable, in an optimizer, and reached by a gradient. Whatever cannot be explained stops the run with one
sentence.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from tok1d.config.registry import TIMM, timm_name
from tok1d.config.schema import ConfigError, StartConfig, TokenizerConfig
from tok1d.data.toy_roads.draw import draw
from tok1d.models.encoder import Encoder
from tok1d.models.pretrained import Converted, convert
from tok1d.models.vit import VIT_SIZES, build_vit, timm_vit
from tok1d.models.weights import ENCODER, Asked, command, read_weights
from tok1d.runs import Run
from tok1d.training.parallelize import whole

LEAST_COSINE = 0.999  # with timm's own forward pass, in float32


def start_encoder(
    encoder: Encoder,
    tokenizer: TokenizerConfig,
    start: StartConfig,
    proven: dict[str, Any] | None = None,
    asked: Asked = ENCODER,
) -> dict[str, Any]:
    """Fill `encoder` with the pretrained weights it is to start from, freeze what is to stay, and report.

    `proven` is a report that this run wrote before: of the same file, it is returned, and the features are
    not compared again. `asked` are the parameters that messages name: a loss's backbone is read like an
    encoder. Random choices elsewhere are not disturbed. Raises `ConfigError` if a file cannot be had or does
    not fit, or if the features differ from timm's own.
    """
    encoder.freeze(start.encoder_freeze)
    report = {"encoder_init": tokenizer.encoder_init, "encoder_size": tokenizer.encoder_size}
    if tokenizer.encoder_init == "random":
        if start.encoder_weights:
            raise ConfigError(
                f"encoder_weights={start.encoder_weights} would not be used by encoder_init=random: "
                f"type for example encoder_init=dinov2, or leave it out"
            )
        facts = {"network": tokenizer.random_like or "plain ViT", "source": "random", "tensors": []}
        return report | facts | fairness(tokenizer)
    weights = read_weights(tokenizer, start, asked)
    converted = convert(weights.state, encoder.vit)
    check(converted, tokenizer, start, weights.source, asked)
    encoder.vit.load_state_dict(converted.state)
    if proven and proven.get("sha256") == weights.sha256:
        return proven
    network = timm_name(tokenizer.encoder_init, tokenizer.encoder_size)
    return report | {
        "network": network, "source": weights.source, "sha256": weights.sha256,
        "tensors": [row._asdict() for row in converted.rows],
        "cosine": compare(encoder, tokenizer, converted, weights.source, asked),
    } | fairness(tokenizer)  # fmt: skip


def check(
    converted: Converted, tokenizer: TokenizerConfig, start: StartConfig, source: str, asked: Asked
) -> None:
    """Stop for tensors that are missing, unexpected or of another shape."""
    bad = converted.unexplained
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise ConfigError(
            f"{source} is not for {tokenizer.encoder_init} of size {tokenizer.encoder_size} "
            f"({bad[0].name} is {bad[0].status}, {bad[0].reason}{more}): "
            f"type '{command(tokenizer, start, asked)}' for the right file, "
            f"or give it as {asked.weights}=PATH"
        )


@torch.no_grad()
def compare(
    encoder: Encoder, tokenizer: TokenizerConfig, converted: Converted, source: str, asked: Asked = ENCODER
) -> dict[str, float]:
    """Cosine [-1, 1] of our patch features with timm's own model, loaded by timm, on two drawn road scenes.

    The mean over patches, without latent tokens (least over patches too) and beside all K. Raises
    `ConfigError`.
    """
    size = tokenizer.image_size
    scenes = torch.stack([to_tensor(draw(i, min(max(size, 16), 1024))) for i in range(2)])
    images = F.interpolate(scenes, (size, size)).to(encoder.mean.device)  # [2, 3, H, W]
    with torch.random.fork_rng(devices=[]):
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
            f"choose another {asked.init}, or give another file as {asked.weights}=PATH"
        )
    return {"patches": alone.mean().item(), "least": least, "beside_latent_tokens": beside.mean().item()}


def library_features(tokenizer: TokenizerConfig, named: dict[str, Tensor], images: Tensor) -> Tensor:
    """timm's model of this name, with the file resampled by timm: images in 0 … 1 -> [B, N, D]."""
    width, depth, heads = VIT_SIZES[tokenizer.encoder_size]
    init = tokenizer.encoder_init
    own = {} if init.startswith(TIMM) else dict(embed_dim=width, depth=depth, num_heads=heads)
    model = timm_vit(timm_name(init, tokenizer.encoder_size), tokenizer, **own).to(images.device).eval()
    eva = isinstance(model, timm.models.eva.Eva)
    library = timm.models.eva if eva else timm.models.vision_transformer
    model.load_state_dict(library.checkpoint_filter_fn(dict(named), model))
    mean, std = (images.new_tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return model.forward_features((images - mean) / std)[:, model.num_prefix_tokens :]


# ---- which comparison with random weights is fair ----


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


# ---- which parameters learn ----


def add_parameters(run: Run, model: nn.Module, optimizers: list) -> None:
    """Add to the run's report, between a backward pass and its step, which parameters learn.

    Raises `ConfigError` if a trainable one is in no optimizer or two, or is reached by no gradient, or a
    frozen one is in an optimizer.
    """
    path = run / "load_report.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    run.write_json("load_report.json", report | {"parameters": parameters(model, optimizers)})


def parameters(model: nn.Module, optimizers: list) -> list[dict[str, Any]]:
    """Tensors of each part: trainable, in an optimizer, with a gradient, with one that is not 0."""
    held = Counter(id(p) for o in optimizers for group in o.param_groups for p in group["params"])
    rows: dict[str, Counter] = {}
    for name, p in model.named_parameters():
        if held[id(p)] != int(p.requires_grad):
            kind = "trainable" if p.requires_grad else "frozen"
            raise ConfigError(
                f"{name} is {kind} but in {held[id(p)]} optimizers: type encoder_freeze=none, and report this"
            )
        if p.requires_grad and p.grad is None:
            raise ConfigError(f"{name} is trainable but reached by no gradient: report this")
        row = rows.setdefault(part_of(name), Counter())
        row.update(
            tensors=1, trainable=int(p.requires_grad), in_an_optimizer=held[id(p)],
            with_gradient=int(p.grad is not None), gradient_not_0=int(p.grad is not None and
            bool(whole(p.grad).any())),
        )  # fmt: skip
    return [{"part": part, **counts} for part, counts in rows.items()]


def part_of(name: str) -> str:
    """`encoder.vit.blocks.0.…` is part of encoder.vit, `decoder.blocks.0.…` of decoder."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "encoder" else parts[0]


# ---- to look at ----


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The report's facts, for `tables.facts`."""
    counts = Counter(row["status"] for row in report["tensors"])
    keys = ("init_from", "encoder_init", "network", "source", "sha256")
    facts = {key: report[key] for key in keys if key in report}
    if "changes" in report:
        facts["changes"] = "<br>".join(report["changes"]) or "none"
    other = ("new", "dropped") if "init_from" in report else ("dropped", "missing", "unexpected")
    facts |= {f"tensors {status}": counts[status] for status in ("loaded", "resampled", *other)}
    for name, value in report.get("cosine", {}).items():
        facts[f"cosine with timm's own forward pass, {name.replace('_', ' ')}"] = f"{value:.6f}"
    return facts | {
        "fair random baseline": report["fair_pair"],
        "plain random differs in": "<br>".join(report["differences_from_plain_random"]) or "nothing",
    }


def explanations(report: dict[str, Any]) -> list[dict[str, str]]:
    """Rows, for `tables.table`, of what was not simply copied; alike tensors together."""
    groups = Counter(
        (re.sub(r"\.\d+\.", ".*.", row["name"]), row["status"], row["reason"])
        for row in report["tensors"]
        if row["reason"]
    )
    rows = [dict(tensor=n, how_many=str(count), status=s, reason=r) for (n, s, r), count in groups.items()]
    every = "every tensor was copied as it is" if report["tensors"] else "all weights are random"
    return rows or [dict(tensor="", how_many="", status="", reason=every)]


def learning(run: Run) -> list[dict[str, Any]]:
    """Rows, for `tables.table`, of which parameters of a trained run learned."""
    path = run / "load_report.json"
    rows = json.loads(path.read_text()).get("parameters") if path.exists() else None
    return rows or [{"part": "trained before this was recorded"}]
