"""The tokenizer that a fine-tuned one starts from: a run, a model folder, or a model on the hub."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

from tok1d.config.schema import ConfigError, TokenizerConfig
from tok1d.models.hub import hub_file
from tok1d.models.weights import read_file

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
FILES = ("config.json", "model.safetensors")


class Parent(NamedTuple):
    config: TokenizerConfig
    state: dict[str, Tensor]  # as in its state_dict
    path: Path  # the file that holds it
    source: str  # a path, or repository@commit
    sha256: str  # of that file


def read_parent(init_from: str) -> Parent:
    """The tokenizer of a run folder, of a model folder or of a hub id, which may name a revision (`id@tag`).

    A run that is not finished gives its averaged weights so far. Raises `ConfigError`.
    """
    given = Path(init_from).expanduser()
    if (given / "last.ckpt").is_file() and not (given / "model" / FILES[0]).is_file():
        return _unfinished(given)
    folder, source = _locate(init_from)
    try:
        config = TokenizerConfig(**json.loads((folder / FILES[0]).read_text()))
    except (OSError, ValueError, TypeError):  # pydantic's errors are ValueErrors
        raise ConfigError(f"{source} is no tokenizer of this tok1d: {_remedy()}") from None
    weights = folder / FILES[1]
    return Parent(config, read_file(weights, _remedy()), weights, source, _sha256(weights))


def on_hub(init_from: str) -> bool:
    """Whether this is to be looked for on the hub: it is no folder here, and reads like `user/name`."""
    return bool(HUB_ID.fullmatch(init_from)) and not Path(init_from).expanduser().exists()


def _locate(init_from: str) -> tuple[Path, str]:
    """The folder that holds `config.json` and `model.safetensors`, fetched if need be, and its origin."""
    given = Path(init_from).expanduser()
    for folder in (given / "model", given):
        if (folder / FILES[0]).is_file():
            return folder, str(folder)
    if given.exists():
        raise ConfigError(f"{given} holds no tokenizer: {_remedy()}")
    if not on_hub(init_from):
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
        params = yaml.safe_load((folder / "params.yaml").read_text())
        config = TokenizerConfig(**{k: v for k, v in params.items() if k in TokenizerConfig.model_fields})
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["ema"]
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError):
        raise ConfigError(f"{path} is damaged, or of another tok1d: {_remedy()}") from None
    source = f"{path}, averaged weights of a run that is not finished"
    return Parent(config, state, path, source, _sha256(path))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remedy() -> str:
    return "type init_from=outputs/SWEEP/RUN, a folder with config.json and model.safetensors, or a hub id"
