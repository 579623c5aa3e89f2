"""Checkpoints of peers, with weights made of their tensors' names: ../shared/fixtures says which, and what
the peers' own code computes with them.
"""

import copy
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from workbench import CI, REPO

FIXTURES = REPO.parent / "shared" / "fixtures"
NAMES = ("titok-s128-legacy", "titok-bl64-onestage", "titok-ll32-vae", "one-d-piece-s256")


def need_fixtures() -> None:
    if not FIXTURES.exists() and not CI:
        pytest.skip(f"there are no peers' tensors and golden outputs beside the repository: {FIXTURES}")


def described(name: str) -> dict:
    """The config and the shapes of a checkpoint."""
    need_fixtures()
    return json.loads((FIXTURES / "shapes.json").read_text(encoding="utf-8"))[name]


def golden(name: str) -> dict[str, torch.Tensor]:
    """What the peers' own code computes."""
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def fill(shapes: dict) -> dict[str, torch.Tensor]:
    spec = importlib.util.spec_from_file_location("peer_weights", FIXTURES / "peer_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill(shapes)


def save_peer(folder: Path, name: str, file: str = "model.safetensors") -> Path:
    """A whole checkpoint as its authors publish it; returns the folder."""
    what = described(name)
    return write_peer(folder, what["config"], fill(what["shapes"]), file)


def save_small_peer(folder: Path, name: str, tokens: int = 8, grid: int = 2) -> Path:
    """The same for images of `grid` patches a side and so many tokens: it computes in no time."""
    what = copy.deepcopy(described(name))
    for tensor, shape in what["shapes"].items():
        if tensor.endswith("latent_token_positional_embedding") or tensor == "latent_tokens":
            shape[0] = tokens
        elif tensor.endswith(".positional_embedding"):
            shape[0] = 1 + grid**2
    what["config"]["model"]["vq_model"]["num_latent_tokens"] = tokens
    what["config"]["dataset"]["preprocessing"]["crop_size"] = 16 * grid
    state = {n: t.half() for n, t in fill(what["shapes"]).items()}
    return write_peer(folder, what["config"], state)


def sketch(name: str, leave_out: tuple[str, ...] = ("transformer.", "pixel_decoder.m", "pixel_decoder.u")):
    """The config and the tensors, all zero, that say what a checkpoint is; most others are left out."""
    what = copy.deepcopy(described(name))
    shapes = {n: s for n, s in what["shapes"].items() if not any(part in n for part in leave_out)}
    return what["config"], {name: torch.zeros(shape) for name, shape in shapes.items()}


def write_peer(folder: Path, config: dict | None, state: dict, file: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (save_file if file.endswith("safetensors") else torch.save)(state, folder / file)
    return folder
