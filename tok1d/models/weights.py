"""Pretrained files: fetched from the hub or found on disk, read without running code, hashed.

Whatever is wrong with a file ends here in one sentence that names the file, the command that fetches it, and
the parameter that takes a local one. Nothing falls back to random weights.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.registry import BACKBONES, TIMM
from tok1d.config.schema import StartConfig, TokenizerConfig

SECONDS = 5.0  # that a connection may take


def hub_file(repository: str, name: str, revision: str | None = None) -> Path:
    """A file of a repository, from the cache on this machine or fetched; `HF_HUB_OFFLINE=1` is honoured.

    Without internet it fails at once. Raises what `huggingface_hub.hf_hub_download` does.
    """
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, name, revision=revision, local_files_only=offline()))


HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?")


def is_hub_id(name: str) -> bool:
    """Whether this is to be looked for on the hub: it is no folder here, and reads like `user/name`."""
    return bool(HUB_ID.fullmatch(name)) and not Path(name).expanduser().exists()


def offline() -> bool:
    """Whether nothing can be fetched from the hub; its own client would try for half a minute."""
    return constants.HF_HUB_OFFLINE or not can_reach(constants.ENDPOINT)


def can_reach(endpoint: str) -> bool:
    """Whether a connection can be made, names until it can; where there is a proxy that is its business."""
    if endpoint not in _reached and (urlsplit(endpoint).scheme in getproxies() or reachable(endpoint)):
        _reached.add(endpoint)
    return endpoint in _reached


_reached: set[str] = set()


def reachable(endpoint: str) -> bool:
    url = urlsplit(endpoint)
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname, port), SECONDS).close()
    except OSError:
        return False
    return True


class Weights(NamedTuple):
    state: dict[str, Tensor]  # names as in the file
    path: Path
    source: str  # where it came from: a path, or repository@commit/file
    sha256: str


class ParamNames(NamedTuple):
    """The parameters by which a user asks for a pretrained network: what messages about its file name."""

    init: str = "encoder_init"
    size: str = "encoder_size"
    weights: str = "encoder_checkpoint"  # takes a local file
    also: str = ""  # what else to type, or else nothing is fetched


ENCODER = ParamNames()


def read_weights(tokenizer: TokenizerConfig, start: StartConfig, names: ParamNames = ENCODER) -> Weights:
    """The pretrained file of these parameters. Raises `ConfigError` if it cannot be had, or is not sound."""
    path, source = locate(tokenizer, start, names)
    return hashed(path, source, fix_hint_for(tokenizer, start, names))


def hashed(path: Path, source: str, remedy: str) -> Weights:
    """A file's tensors and its sha256. Raises `ConfigError` if it is not sound."""
    state = read_file(path, remedy)
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Weights(state, path, source, sha256)


def local_file(path: str, remedy: str) -> tuple[Path, str]:
    """The file that a user named, and its origin. Raises `ConfigError` if there is none."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise ConfigError(f"there is no file {found}: {remedy}")
    return found, str(found)


def torch_hub_file(url: str, sha256: str, remedy: str) -> Path:
    """A file that torch's own libraries fetch, in torch's hub folder; `HF_HUB_OFFLINE=1` is honoured.

    `sha256` is how its hash starts. Raises `ConfigError` if it cannot be had.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if path.is_file():
        return path
    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), sha256, progress=False)
    except Exception as error:  # no internet, a full disk, a file of another hash
        raise ConfigError(f"{url} cannot be fetched ({type(error).__name__}): {remedy}") from None
    return path


def locate(tokenizer: TokenizerConfig, start: StartConfig, names: ParamNames = ENCODER) -> tuple[Path, str]:
    """The file on this machine, fetched if need be, and its origin; `HF_HUB_OFFLINE=1` is honoured."""
    if start.encoder_checkpoint:
        return local_file(start.encoder_checkpoint, fix_hint_for(tokenizer, start, names))
    repository, name, revision = hub_location(tokenizer, start, names)
    try:
        path = hub_file(repository, name, revision)
    except Exception as error:  # no internet, no such revision, no permission
        raise ConfigError(
            f"{name} of {repository} cannot be fetched ({type(error).__name__}): "
            f"{fix_hint_for(tokenizer, start, names)}"
        ) from None
    parts = path.parts  # …/snapshots/<commit>/<file>
    commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts else revision
    return path, f"{repository}@{commit}/{name}"


def hub_location(
    tokenizer: TokenizerConfig, start: StartConfig, names: ParamNames = ENCODER
) -> tuple[str, str, str]:
    """Repository, file and revision. Raises `ConfigError` for a size that nobody has published."""
    init, size = tokenizer.encoder_init, tokenizer.encoder_size
    if init.startswith(TIMM):
        import timm

        config = timm.get_pretrained_cfg(init.removeprefix(TIMM), allow_unregistered=True)
        if config is None or not config.hf_hub_id:
            raise ConfigError(f"{init} has no weights on the hub: give a local file as {names.weights}=PATH")
        return config.hf_hub_id, "model.safetensors", start.encoder_revision or "main"
    backbone = BACKBONES[init]
    revision = start.encoder_revision or backbone.revision
    if size not in backbone.models:
        sizes = " or ".join(backbone.models)
        raise ConfigError(
            f"{names.init}={init} was published in no size {size}: type {names.size}={sizes}, "
            f"or give a local file as {names.weights}=PATH"
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


def prefetch_command(tokenizer: TokenizerConfig, start: StartConfig, names: ParamNames = ENCODER) -> str:
    """What to type on a machine with internet."""
    values = {names.init: tokenizer.encoder_init, names.size: tokenizer.encoder_size}
    words = [f"{name}={value}" for name, value in values.items() if name]
    if start.encoder_revision:
        words.append(f"encoder_revision={start.encoder_revision}")
    return " ".join(["tok1d prefetch", *words, names.also]).rstrip()


def fix_hint(command: str, weights: str) -> str:
    """The end of every message: what to do when a file is not to be had."""
    return (
        f"type '{command}' where there is internet and bring its folder here, "
        f"or give a sound local file as {weights}=PATH"
    )


def fix_hint_for(tokenizer: TokenizerConfig, start: StartConfig, names: ParamNames) -> str:
    return fix_hint(prefetch_command(tokenizer, start, names), names.weights)


def model_sha256(model: Any) -> str:
    """A hash over all weights and the config of a module; of another object its class's name."""
    from torch import nn  # here, so that cards can be read without it

    if not isinstance(model, nn.Module):
        return f"none: a {type(model).__qualname__} without weights"
    return state_sha256(model.state_dict(), str(getattr(model, "config", "")))


def state_sha256(state: Mapping[str, Tensor], about: str = "") -> str:
    """A hash over tensors by name, and over a text about them."""
    found = hashlib.sha256(about.encode())
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(as_bytes(tensor))
    return found.hexdigest()


def as_bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
