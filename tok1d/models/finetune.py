"""Fine-tuning: a tokenizer that starts from the weights of another one, which may differ from it.

| what differs | what becomes of the weights |
|---|---|
| `num_latent_tokens` | what belongs to the first tokens is kept; further tokens start as in a fresh model |
| `image_size`, `patch_size` | what lies on the patch grid is resampled (bicubic), as are patch kernels |
| `elastic` | all are kept, but tokens see other tokens than they are used to |
| `quantizer` | the codebook and the maps to and from codes start afresh |
| `decoder_size`, `decoder_head` | the decoder, or its head, starts afresh |
| `encoder_size`, or its network | refused: nothing would be left to start from |

Every tensor of both ends up in one row of the report, with the reason for whatever was not simply copied.

Tokens that are added start as in a fresh model, distinct from all others, but for the decoder's mix, where
they start at 0. Measured on toy roads at 32 px (nano, 8 to 16 tokens, validation PSNR in dB, parent 23.3):
22.6 at step 0 and 23.3 after 50 steps; 19.7 and 22.6 with a fresh mix; 23.1 and 23.3 as slightly noisy
copies of the first tokens; 14.2 and 19.5 from scratch.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.peers import is_peer
from tok1d.config.registry import QUANTIZERS
from tok1d.config.schema import StartConfig, TokenizerConfig
from tok1d.models.peers.parent import read_peer_parent
from tok1d.models.pretrained import Row, fairness, fit, shape
from tok1d.models.tokenizer import Tokenizer, check_complete, read_config
from tok1d.models.weights import hub_file, is_hub_id, read_file

FILES = ("config.json", "model.safetensors")


class Parent(NamedTuple):
    config: TokenizerConfig
    state: dict[str, Tensor]  # as in its state_dict
    path: Path  # the file that holds it
    source: str  # a path, or repository@commit
    sha256: str  # of that file


def read_parent(init_from: str) -> Parent:
    """The tokenizer of a run folder, of a model folder, of a peer (`peer:NAME`) or of a hub id, which may
    name a revision (`id@tag`).

    A run that is not finished gives its averaged weights so far. Raises `ConfigError`.
    """
    if is_peer(init_from):
        config, state, found = read_peer_parent(init_from)
        return Parent(config, _whole(state, config, found.path), found.path, found.source, found.sha256)
    given = Path(init_from).expanduser()
    if (given / "last.ckpt").is_file() and not (given / "model" / FILES[0]).is_file():
        return _unfinished(given)
    folder, source = _locate(init_from)
    try:
        config = read_config(json.loads((folder / FILES[0]).read_text(encoding="utf-8")))
    except ConfigError as error:
        raise ConfigError(f"{source} is no tokenizer of this tok1d ({error}): {_remedy()}") from None
    except (OSError, ValueError):
        raise ConfigError(f"{source} is no tokenizer of this tok1d: {_remedy()}") from None
    weights = folder / FILES[1]
    return Parent(
        config, _whole(read_file(weights, _remedy()), config, weights), weights, source, _sha256(weights)
    )


def _whole(state: dict[str, Tensor], config: TokenizerConfig, file: Path) -> dict[str, Tensor]:
    """These tensors, if they are all that a tokenizer of this kind has. Raises `ConfigError`."""
    with torch.random.fork_rng(devices=[]):
        check_complete(state, Tokenizer(config), file)
    return state


def _locate(init_from: str) -> tuple[Path, str]:
    """The folder that holds `config.json` and `model.safetensors`, fetched if need be, and its origin."""
    given = Path(init_from).expanduser()
    for folder in (given / "model", given):
        if (folder / FILES[0]).is_file():
            return folder, str(folder)
    if given.exists():
        raise ConfigError(f"{given} holds no tokenizer: {_remedy()}")
    if not is_hub_id(init_from):
        raise ConfigError(f"there is no folder {given}: {_remedy()}")
    repository, _, revision = init_from.partition("@")
    try:
        paths = [hub_file(repository, name, revision or None) for name in FILES]
    except Exception as error:  # no internet, no such repository or revision, no permission
        raise ConfigError(
            f"there is no folder {init_from}, and as a hub id it cannot be fetched ({type(error).__name__}): "
            f"{_remedy()}, or 'tok1d prefetch init_from={init_from}' where there is internet and bring its "
            f"folder here"
        ) from None
    return paths[0].parent, f"{repository}@{paths[0].parent.name}"  # …/snapshots/<commit>/config.json


def _unfinished(folder: Path) -> Parent:
    path = folder / "last.ckpt"
    try:
        params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        config = read_config({k: v for k, v in params.items() if k in TokenizerConfig.model_fields})
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["ema"]
        _whole(state, config, path)
    except ConfigError as error:
        raise ConfigError(f"{path} is damaged, or of another tok1d ({error}): {_remedy()}") from None
    except (AttributeError, OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError):
        raise ConfigError(f"{path} is damaged, or of another tok1d: {_remedy()}") from None
    source = f"{path}, averaged weights of a run that is not finished"
    return Parent(config, state, path, source, _sha256(path))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remedy() -> str:
    return "type init_from=outputs/SWEEP/RUN, a folder with config.json and model.safetensors, or a hub id"


AXES = {  # tables with a row or column per token (K) or per patch (N)
    "encoder.latents": "KD",
    "encoder.mix": "KN",
    "decoder.mask_tokens": "ND",
    "decoder.mix": "NK",
    "decoder.token_positions": "KD",
}
CODES = ("to_codes.", "decoder.from_codes.")


def load_from_tokenizer(model: Tokenizer, start: StartConfig) -> dict[str, Any]:
    """Fill a freshly built `model` with the weights of `start.init_from`, freeze what is to stay, and report.

    Draws no random number. Raises `ConfigError` if that tokenizer cannot be had, or its encoder is another.
    """
    for name in ("encoder_checkpoint", "encoder_revision"):
        if value := getattr(start, name):
            raise ConfigError(
                f"{name}={value} would not be used, since init_from={start.init_from} gives all weights: "
                f"leave out one of them"
            )
    parent = read_parent(start.init_from)
    same_encoder(parent.config, model.config, start.init_from)
    state, rows = adapt(parent.state, parent.config, model)
    model.load_state_dict(state)
    model.encoder.freeze(start.encoder_freeze)
    report = {name: getattr(model.config, name) for name in ("encoder_init", "encoder_size")}
    return report | fairness(model.config) | {
        "init_from": start.init_from, "network": like(parent.config) or "plain ViT",
        "source": parent.source, "sha256": parent.sha256, "changes": changes(parent.config, model.config),
        "tensors": [row._asdict() for row in rows],
        "fair_pair": f"the same parameters without init_from={start.init_from}",
    }  # fmt: skip


def same_encoder(parent: TokenizerConfig, own: TokenizerConfig, init_from: str) -> None:
    """Stop where no weight of the encoder would fit."""
    if "linear" in (parent.encoder, own.encoder):
        names = ("encoder", "image_size", "num_latent_tokens", "fsq_levels")
        theirs, mine = (
            " ".join(
                f"{n}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for n, v in c if n in names
            )
            for c in (parent, own)
        )
        if theirs != mine:
            raise ConfigError(f"{init_from} has {theirs}, not {mine}: type {theirs}, or leave init_from out")
    if like(parent) != like(own):
        theirs, mine = (f"encoder_init={c.encoder_init} random_like={c.random_like}" for c in (parent, own))
        theirs, mine = theirs.removesuffix(" random_like="), mine.removesuffix(" random_like=")
        raise ConfigError(
            f"{init_from} has the network of {theirs}, not of {mine}: type {theirs} "
            f"(no pretrained file is read then), or leave init_from out"
        )
    if parent.encoder_size != own.encoder_size:
        raise ConfigError(
            f"{init_from} has encoder_size={parent.encoder_size}, not {own.encoder_size}: "
            f"type encoder_size={parent.encoder_size}, or leave init_from out"
        )


def like(config: TokenizerConfig) -> str:
    """The encoder's network by the `encoder_init` that made it; empty for a plain ViT."""
    return config.random_like if config.encoder_init == "random" else config.encoder_init


def changes(parent: TokenizerConfig, own: TokenizerConfig) -> list[str]:
    """Each parameter of the network that differs, in words."""
    told = [
        f"{name}: {value} to {getattr(own, name)}"
        for name, value in parent.model_dump(mode="json").items()
        if value != own.model_dump(mode="json")[name] and name not in ("encoder_init", "random_like")
    ]
    if own.elastic and not parent.elastic:
        told.append("same weights, but token k now sees tokens 1 … k alone, and patches see no token")
    if parent.elastic and not own.elastic:
        told.append("same weights, but tokens and patches now all see each other")
    return told


def adapt(
    theirs: dict[str, Tensor], parent: TokenizerConfig, model: Tokenizer
) -> tuple[dict[str, Tensor], list[Row]]:
    """The parent's tensors in the shapes of `model`, which keeps its own where there is no rule; all rows."""
    state, rows = model.state_dict(), []
    for name, fresh in model.state_dict().items():
        fitted, status, reason = adapt_tensor(name, theirs.get(name), fresh, parent, model)
        state[name] = fitted
        rows.append(Row(name, status, reason))
    rows += [
        Row(name, "dropped", f"{shape(t)}: this tokenizer has no such tensor")
        for name, t in theirs.items()
        if name not in state
    ]
    return state, rows


def adapt_tensor(
    name: str, theirs: Tensor | None, fresh: Tensor, parent: TokenizerConfig, model: Tokenizer
) -> tuple[Tensor, str, str]:
    """One tensor of `model`, its status (loaded, resampled or new) and the reason."""
    own = model.config
    if theirs is None and name.endswith(".mix"):
        return torch.zeros_like(fresh), "new", f"{shape(fresh)}: zeros, which change nothing at first"
    if theirs is None:
        return fresh, "new", f"{shape(fresh)}: the other tokenizer has none"
    if name.startswith(CODES) and parent.quantizer != own.quantizer:
        return fresh, "new", f"codes of quantizer={own.quantizer}, not {parent.quantizer}"
    if name.startswith("quantizer.") and codebook(parent) != codebook(own):
        return fresh, "new", f"codebook of {codebook(own)}, not {codebook(parent)}"
    if name in AXES and len(theirs.shape) == len(fresh.shape):
        return adapt_table(name, theirs, fresh, parent, own)
    if name.startswith("encoder.vit."):
        fitted, status, reason = fit(name.removeprefix("encoder.vit."), theirs, model.encoder.vit)
        return (fresh, "new", reason) if status == "wrong shape" else (fitted, status, reason)
    if name.startswith("decoder.to_pixels.0."):
        theirs, reason = resample_pixels(theirs, fresh, parent, own)
        if reason:
            return theirs, "resampled", reason
    if theirs.shape != fresh.shape:
        return fresh, "new", f"{shape(theirs)} there, {shape(fresh)} here"
    return theirs, "loaded", ""


def codebook(config: TokenizerConfig) -> str:
    """What makes two codebooks the same one."""
    row = QUANTIZERS[config.quantizer]
    sizes = [str(getattr(config, name)) for name in (row.codes, row.dim) if name]
    return f"{config.quantizer} {'x'.join(sizes)}"


def adapt_table(
    name: str, theirs: Tensor, fresh: Tensor, parent: TokenizerConfig, own: TokenizerConfig
) -> tuple[Tensor, str, str]:
    """A table with a row or column per token or per patch, axis by axis."""
    reasons = []
    for axis, letter in enumerate(AXES[name]):
        if letter == "D" and theirs.shape[axis] != fresh.shape[axis]:
            return fresh, "new", f"{shape(theirs)} there, {shape(fresh)} here"
        if letter == "N" and parent.grid != own.grid:
            theirs = resample_grid(theirs, axis, parent.grid, own.grid)
            if name == "encoder.mix":  # a sum over patches, of which there are more now, or fewer
                theirs = theirs * (parent.grid / own.grid) ** 2
            reasons.append(f"{parent.grid}x{parent.grid} to {own.grid}x{own.grid} by antialiased bicubic")
    status = "resampled" if reasons else "loaded"
    for axis, letter in enumerate(AXES[name]):
        old, new = theirs.shape[axis], fresh.shape[axis]
        if letter == "K" and old > new:
            theirs = theirs.narrow(axis, 0, new)
            reasons.append(f"the first {new} of {old} tokens")
        if letter == "K" and old < new:
            added = fresh.narrow(axis, old, new - old)
            if name == "decoder.mix":
                added = torch.zeros_like(added)
            theirs = torch.cat([theirs.to(added), added], axis)
            how = "at 0, which changes nothing at first" if name == "decoder.mix" else "as in a fresh model"
            reasons.append(f"{old} tokens, and {new - old} more that start {how}")
    return theirs, status, "; ".join(reasons)


def resample_grid(table: Tensor, axis: int, old: int, new: int) -> Tensor:
    """A table whose `axis` runs over old² patches -> the same over new² patches."""
    rows = table.float().movedim(axis, 0).unsqueeze(0)  # [1, N, D]
    return resample_abs_pos_embed(rows, [new, new], [old, old], 0)[0].movedim(0, axis)


def resample_pixels(
    theirs: Tensor, fresh: Tensor, parent: TokenizerConfig, own: TokenizerConfig
) -> tuple[Tensor, str]:
    """The linear map to a patch's 3 p² pixels, [3 p², D, 1, 1] or its bias, for patches of another size."""
    p, q = parent.patch_size, own.patch_size
    same_head = parent.decoder_head == own.decoder_head != "cnn"
    if p == q or not same_head or theirs.shape[1:] != fresh.shape[1:]:
        return theirs, ""
    pixels = theirs.float().reshape(3, p * p, -1).transpose(0, 1).reshape(p * p, -1)  # [p², 3 D]
    pixels = resample_grid(pixels, 0, p, q).reshape(q * q, 3, -1).transpose(0, 1)  # [3, q², D]
    return pixels.reshape(fresh.shape), f"patch {p} to {q} by antialiased bicubic"
