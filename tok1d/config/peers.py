"""Tokenizers that others have published, by name: `peer:titok-l32`, or `peer:PATH` of their files on a disk;
`peer:MODULE:FUNCTION` is a function of the user's that returns any other one.

Only names and facts, as in `tok1d.config.registry`; what reads their files is in `tok1d.models.peers`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from tok1d.config.fields import Config, ConfigError, FolderName, Names, Text
from tok1d.config.schema import RunConfig

PEER = "peer:"
TITOK = "Apache-2.0, the weights for research purposes only"  # as its README says
ONE_D_PIECE = "Apache-2.0"  # its repository; the hub's model cards say MIT


class Published(NamedTuple):
    """A tokenizer on the hub, as config.json and model.safetensors.

    `revision` is a branch: no commit could be looked up where this was written. The commit that it stood for
    is in the bridge report of each evaluation.
    """

    repository: str
    license: str
    sizes: str  # of encoder and decoder
    tokens: int
    kind: str  # two-stage, one-stage, vae
    revision: str = "main"

    @property
    def files(self) -> tuple[str, str]:
        return "config.json", "model.safetensors"


def _titok(name: str, sizes: str, tokens: int, kind: str) -> Published:
    return Published(f"yucornetto/tokenizer_titok_{name}_imagenet", TITOK, sizes, tokens, kind)


PEERS = {
    "titok-l32": _titok("l32", "LL", 32, "two-stage"),
    "titok-b64": _titok("b64", "BB", 64, "two-stage"),
    "titok-s128": _titok("s128", "SS", 128, "two-stage"),
    "titok-bl64-vq": _titok("bl64_vq8k", "BL", 64, "one-stage"),
    "titok-bl128-vq": _titok("bl128_vq8k", "BL", 128, "one-stage"),
    "titok-sl256-vq": _titok("sl256_vq8k", "SL", 256, "one-stage"),
    "titok-ll32-vae": _titok("ll32_vae_c16", "LL", 32, "vae"),
    "titok-bl64-vae": _titok("bl64_vae_c16", "BL", 64, "vae"),
    "titok-bl128-vae": _titok("bl128_vae_c16", "BL", 128, "vae"),
} | {
    f"one-d-piece-{size.lower()}256": Published(
        f"turing-motors/One-D-Piece-{size}-256", ONE_D_PIECE, 2 * size, 256, "two-stage"
    )
    for size in "SBL"
}  # fmt: skip


class Installed(NamedTuple):
    """A tokenizer whose own package, installed by the user, computes it: no code of it is here."""

    package: str  # what is imported
    install: str  # what to type
    license: str
    model: str  # the hub's id; empty: its weights are files of the user's
    image_size: int = 256


FLEXTOK = "code: Apple's sample code license, non-commercial; weights: Apple ML research model license"
MAETOK = "no license file in its repository"
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
INSTALLED = {
    f"flextok-{sizes}": Installed(
        "flextok", "pip install git+https://github.com/apple/ml-flextok", FLEXTOK,
        f"EPFL-VILAB/flextok_{sizes.replace('-', '_')}_in1k",
    )
    for sizes in ("d12-d12", "d18-d18", "d18-d28")
} | {
    "maetok-b128": Installed(
        "modelling", "git clone https://github.com/Hhhhhhao/continuous_tokenizer, and add it to PYTHONPATH",
        MAETOK, "MAETok/maetok-b-128",
    ),
}  # fmt: skip


class PeersRunConfig(RunConfig):
    """Where peers' evaluations are kept: `<outputs>/<sweep>/`."""

    sweep: FolderName = Field("peers", description="folder of their evaluations")


class PeersConfig(Config):
    """Which tokenizers are measured side by side, and on what; see `notebooks/peers.ipynb`."""

    peers: Names = Field(
        ("peer:titok-l32", "peer:titok-s128", "peer:one-d-piece-l256"),
        min_length=1,
        description="others' tokenizers of one image size: peer:NAME or peer:PATH",
    )
    runs: Names = Field((), description="runs of ours of that size, beside them")
    eval_data: Text = Field("toy-roads", min_length=1, description="images to measure on, as `data`")
    fit_data: Text = Field(
        "", description="images that a linear code is fitted to, as `data`; empty: toy roads or none"
    )


def is_file(given: str) -> bool:
    """Whether what `peer_of` gave is a path."""
    return not (given in PEERS or given in INSTALLED or FUNCTION.fullmatch(given))


def is_peer(name: object) -> bool:
    """Whether a name stands for a tokenizer of others."""
    return str(name).startswith(PEER)


def peer_of(name: str) -> str:
    """What stands behind `peer:`: a name of `PEERS` or `INSTALLED`, a path, or MODULE:FUNCTION. Raises
    `ConfigError` for what is none of them.
    """
    given = str(name).removeprefix(PEER)
    known = (*PEERS, *INSTALLED)
    if given in known or (given and Path(given).expanduser().exists()) or FUNCTION.fullmatch(given):
        return given
    if "/" in given or "." in given:
        raise ConfigError(
            f"{PEER}{given} is not here: type the folder of its files as {PEER}PATH, or a name such as "
            f"{PEER}{next(iter(PEERS))}"
        )
    close = difflib.get_close_matches(given.lower().replace("_", "-"), known, n=1, cutoff=0.5)
    hint = f"did you mean {PEER}{close[0]}?" if close else f"type one of {', '.join(known)}, or {PEER}PATH"
    raise ConfigError(f"{PEER}{given} is no tokenizer that is known here: {hint}")


def peer_run(name: str) -> str:
    """What the folder of a peer's evaluations is called; of a path its last part and a hash of it all."""
    given = peer_of(name)
    if not is_file(given):
        return given.replace(":", "-")
    path = Path(given).expanduser().resolve()
    plain = re.sub(r"[^\w.+-]+", "-", path.stem if path.is_file() else path.name).strip(".+-") or "peer"
    return f"{plain[:60]}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
