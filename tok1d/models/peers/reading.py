"""The files of a peer: from the hub or a disk, read without running code, their keys as they are told.

| what is typed | what is read |
|---|---|
| `peer:titok-l32` | config.json and model.safetensors of its repository |
| `peer:FOLDER` | config.json (or config.yaml) and the one .safetensors, .bin, .pt or .pth file there |
| `peer:FILE` | that file, and the config beside it or in a folder above, up to three |

A first-stage file is completed by `maskgit-vqgan-imagenet-f16-256.bin` if that lies beside it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.parse import read_yaml
from tok1d.config.peers import PEER, PEERS, Published
from tok1d.models.weights import Weights, hashed, hub_file, local_file

CONFIGS = ("config.json", "config.yaml")
KINDS = (".safetensors", ".bin", ".pt", ".pth")
PIXELS = "maskgit-vqgan-imagenet-f16-256.bin"  # of fun-research/TiTok
PIXEL_PARTS = ("decoder.", "quantize.")  # what a first stage lacks, there without `pixel_`
LEVELS = 3  # folders above a file in which its config may be
UNKNOWN = "unknown: its files do not say"


class PeerFiles(NamedTuple):
    """What was read; nothing of it is believed yet."""

    name: str  # what was typed after `peer:`
    weights: Weights
    config: dict[str, Any]
    config_source: str
    license: str
    remedy: str  # the end of every message
    pixels: Weights | None = None  # the pixel decoder's own file


def remedy_of(name: str) -> str:
    """What to do about files that are no good."""
    if name in PEERS:
        return (
            f"type 'tok1d prefetch {PEER}{name}' where there is internet and bring its folder here, "
            f"or give a sound local folder as {PEER}PATH"
        )
    return f"give the whole file as it was published, with its config.json beside it, as {PEER}PATH"


def read_files(name: str, size: str = "") -> PeerFiles:
    """The files of a peer, by a name of `PEERS` or a path; `size` is what messages say of its weights' size.
    Raises `ConfigError`.
    """
    remedy = remedy_of(name)
    if name in PEERS:
        row = PEERS[name]
        config, path = (fetched(row, file, remedy, size) for file in row.files)
        commit = path.parent.name if path.parent.parent.name == "snapshots" else row.revision
        weights = hashed(path, f"{row.repository}@{commit}/{path.name}", remedy)
        return PeerFiles(name, weights, read_config(config), str(config), row.license, remedy)
    path = weights_in(Path(name).expanduser(), remedy)
    refuse_namespace(path)
    config = config_of(path)
    beside = path.parent / PIXELS
    pixels = hashed(beside, str(beside), remedy) if beside.is_file() else None
    weights = hashed(path, str(path), remedy)
    return PeerFiles(name, weights, read_config(config), str(config), UNKNOWN, remedy, pixels)


def fetched(row: Published, file: str, remedy: str, size: str) -> Path:
    """A file of the hub's. Raises `ConfigError` that says what is missing, how large, and under what
    license.
    """
    try:
        return hub_file(row.repository, file, row.revision)
    except Exception as error:  # no internet, no such revision, no permission
        raise ConfigError(
            f"{' and '.join(row.files)}{f' ({size})' if size else ''} of {row.repository} (license: "
            f"{row.license}) cannot be fetched ({type(error).__name__}): {remedy}"
        ) from None


def weights_in(path: Path, remedy: str) -> Path:
    """The one file of weights that a path means."""
    if not path.is_dir():
        return local_file(str(path), remedy)[0]
    found = sorted(p for p in path.iterdir() if p.suffix in KINDS and p.name != PIXELS and p.is_file())
    found = [p for p in found if p.suffix == KINDS[0]] or found
    if len(found) != 1:
        what = f"several files of weights, {found[0].name} and {found[1].name}" if found else "no weights"
        raise ConfigError(f"{path} holds {what}: type the file of weights as {PEER}PATH")
    return found[0]


def config_of(path: Path) -> Path:
    for folder in list(path.absolute().parents)[:LEVELS]:
        for name in CONFIGS:
            if (folder / name).is_file():
                return folder / name
    raise ConfigError(
        f"there is no config.json beside {path}: bring the one that was published with it, or the training's "
        f"config.yaml, for the tensors do not say how codes are compared"
    )


def read_config(path: Path) -> dict[str, Any]:
    """Names and values of a config.json or config.yaml. Raises `ConfigError`."""
    if path.suffix == ".yaml":
        return read_yaml(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is damaged: bring the config.json that was published with the weights")
    return values


def refuse_namespace(path: Path) -> None:
    """Raises `ConfigError` for a pickle that holds the arguments of its training beside the tensors."""
    if path.suffix == KINDS[0] or not zipfile.is_zipfile(path):
        return
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # cut short, or no checkpoint: `hashed` says so
        return
    if "argparse.Namespace" in found:
        raise ConfigError(
            f"{path} holds an argparse.Namespace, the arguments of its training, beside its tensors, and is "
            f"refused: save its tensors alone, as .safetensors, where you trust it, and give that file"
        )


def under(state: Mapping[str, Tensor], marker: str) -> tuple[dict[str, Tensor], str, list[str]]:
    """The tensors that share the prefix of `marker` (`module.`, `tokenizer.`), without it; the prefix; and
    the names of those that do not have it.
    """
    prefix = next((name.removesuffix(marker) for name in state if name.endswith(marker)), "")
    mine = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    return mine, prefix, [name for name in state if not name.startswith(prefix)]
