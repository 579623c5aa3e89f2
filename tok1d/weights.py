"""Pretrained files: fetched from the hub or found on disk, read without running code, hashed.

Whatever is wrong with a file ends here in one sentence that names the file, the command that fetches it, and
the parameter that takes a local one. Nothing falls back to random weights.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tok1d.backbones import BACKBONES, TIMM
from tok1d.config import ConfigError, StartConfig, TokenizerConfig


class Weights(NamedTuple):
    state: dict[str, Tensor]  # names as in the file
    path: Path
    source: str  # where it came from: a path, or repository@commit/file
    sha256: str


def read_weights(tokenizer: TokenizerConfig, start: StartConfig) -> Weights:
    """The pretrained file of these parameters. Raises `ConfigError` if it cannot be had, or is not sound."""
    path, source = locate(tokenizer, start)
    state = read_file(path, _remedy(tokenizer, start))
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Weights(state, path, source, sha256)


def locate(tokenizer: TokenizerConfig, start: StartConfig) -> tuple[Path, str]:
    """The file on this machine, fetched if need be, and its origin; `HF_HUB_OFFLINE=1` is honoured."""
    if start.encoder_weights:
        path = Path(start.encoder_weights).expanduser()
        if not path.is_file():
            raise ConfigError(f"there is no file {path}: {_remedy(tokenizer, start)}")
        return path, str(path)
    repository, name, revision = on_hub(tokenizer, start)
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(repository, name, revision=revision))
    except Exception as error:  # no internet, no such revision, no permission
        raise ConfigError(
            f"{name} of {repository} cannot be fetched ({type(error).__name__}): {_remedy(tokenizer, start)}"
        ) from None
    parts = path.parts  # …/snapshots/<commit>/<file>
    commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts else revision
    return path, f"{repository}@{commit}/{name}"


def on_hub(tokenizer: TokenizerConfig, start: StartConfig) -> tuple[str, str, str]:
    """Repository, file and revision. Raises `ConfigError` for a size that nobody has published."""
    init, size = tokenizer.encoder_init, tokenizer.encoder_size
    if init.startswith(TIMM):
        import timm

        config = timm.get_pretrained_cfg(init.removeprefix(TIMM), allow_unregistered=True)
        if config is None or not config.hf_hub_id:
            raise ConfigError(f"{init} has no weights on the hub: give a local file as encoder_weights=PATH")
        return config.hf_hub_id, "model.safetensors", start.encoder_revision or "main"
    backbone = BACKBONES[init]
    revision = start.encoder_revision or backbone.revision
    if size not in backbone.models:
        sizes = " or ".join(backbone.models)
        raise ConfigError(
            f"encoder_init={init} was published in no size {size}: type encoder_size={sizes}, "
            f"or give a local file as encoder_weights=PATH"
        )
    if size in backbone.files:
        return *backbone.files[size], revision
    return f"timm/{backbone.models[size]}", "model.safetensors", revision


def read_file(path: Path, remedy: str) -> dict[str, Tensor]:
    """Tensors by name from .safetensors, or from a pickle that holds nothing but tensors."""
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except pickle.UnpicklingError:
        raise ConfigError(f"{path} is refused, since it holds code or no tensors at all: {remedy}") from None
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        UnicodeDecodeError,
    ) as error:
        what = str(error).strip().split("\n")[0][:80] or type(error).__name__
        raise ConfigError(f"{path} is damaged or cut short ({what}): {remedy}") from None
    for wrapper in ("model", "state_dict", "teacher"):  # as MAE, and many training scripts, save it
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise ConfigError(f"{path} holds no tensors by name: {remedy}")
    return tensors


def _torch_load(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def command(tokenizer: TokenizerConfig, start: StartConfig) -> str:
    """What to type on a machine with internet."""
    words = [f"encoder_init={tokenizer.encoder_init}", f"encoder_size={tokenizer.encoder_size}"]
    if start.encoder_revision:
        words.append(f"encoder_revision={start.encoder_revision}")
    return " ".join(["tok1d prefetch", *words])


def _remedy(tokenizer: TokenizerConfig, start: StartConfig) -> str:
    return (
        f"type '{command(tokenizer, start)}' where there is internet and bring its folder here, "
        f"or give a sound local file as encoder_weights=PATH"
    )
