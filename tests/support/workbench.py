"""Smoke-sized runs for tests: real notebooks, real kernels, seconds on a CPU."""

import functools
import operator
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CI = bool(os.environ.get("CI"))
TINY = dict(
    image_size=16, encoder="vit", patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=4,
    elastic="true", toy_images=40, toy_val_images=12, steps=12, batch_size=4, log_every=2, checkpoint_every=5,
)  # fmt: skip
ENV = os.environ | {"OMP_NUM_THREADS": "1", "TOK1D_HEADLESS": "1"}


def command(notebook: str, outputs: Path, **params) -> list[str]:
    """`tok1d run notebooks/<notebook>.ipynb` with parameters."""
    pairs = [f"{name}={value}" for name, value in ({"outputs": outputs} | params).items()]
    return [
        sys.executable,
        "-m",
        "tok1d.cli",
        "run",
        f"notebooks/{notebook}.ipynb",
        *functools.reduce(operator.iadd, (["-p", p] for p in pairs), []),
    ]


def tok1d_run(notebook: str, outputs: Path, **params) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(notebook, outputs, **params), cwd=REPO, env=ENV, capture_output=True, text=True
    )


def train_tiny(outputs: Path, **params) -> subprocess.CompletedProcess:
    return tok1d_run("train", outputs, **TINY | params)
