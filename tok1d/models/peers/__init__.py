"""Tokenizers of others, read from their own files by networks of ours.

    peer = load_peer("peer:titok-l32")  # or peer:PATH
    ids = peer.encode(images)  # float [B, 3, S, S] in 0 … 1 -> ids [B, K] int64
    images = peer.decode(ids)
    peer.report  # what became of every tensor, and where it came from

A peer is what `tok1d.evaluation.measured` measures. A further format is one more file here: a network, what
its keys say it is, and a line in `load_peer`.
"""

from __future__ import annotations

from typing import Any

import torch

from tok1d.config.fields import ConfigError
from tok1d.config.peers import FUNCTION, INSTALLED, PEER, PEERS, Published, peer_of
from tok1d.models.peers.layout import MARKER, layout_of
from tok1d.models.peers.reading import PIXEL_PARTS, PIXELS, UNKNOWN, PeerFiles, read_files, under
from tok1d.models.peers.report import sort_tensors
from tok1d.models.peers.titok import TiTok, TiTokConfig
from tok1d.models.weights import Weights


def load_peer(name: str) -> Any:
    """A peer in eval mode, on the CPU, by `peer:NAME` or `peer:PATH`. Raises `ConfigError` for files that
    cannot be had, or are not sound.
    """
    given = peer_of(name)
    if given in INSTALLED or FUNCTION.fullmatch(given):
        from tok1d.models.peers.installed import load_function, load_installed

        return load_installed(given) if given in INSTALLED else load_function(given)
    return build(read_peer(given))


def prefetch_peer(name: str) -> list[Weights]:
    """The files of weights that `load_peer` reads, fetched if need be. Raises `ConfigError`."""
    given = peer_of(name)
    if given in INSTALLED or FUNCTION.fullmatch(given):
        license = INSTALLED[given].license if given in INSTALLED else UNKNOWN
        raise ConfigError(
            f"{PEER}{given} is fetched by its own package (license: {license}): load it once where there is "
            f"internet, and bring the hub's cache here"
        )
    files = read_peer(given)
    return [files.weights, *([files.pixels] if files.pixels else [])]


def read_peer(given: str) -> PeerFiles:
    return read_files(given, size_of(PEERS[given]) if given in PEERS else "")


def build(files: PeerFiles) -> TiTok:
    """The network that the files hold, every tensor of them accounted for. Raises `ConfigError`."""
    state, prefix, others = under(files.weights.state, MARKER)
    config = layout_of(state, files.config, files.config_source, files.remedy)
    notes = dict.fromkeys(state, f"without its prefix {prefix}") if prefix else {}
    if config.legacy and "pixel_decoder.conv_in.weight" not in state:
        if files.pixels is None:
            raise ConfigError(
                f"{files.weights.path} is of a first stage, whose decoder ends at codes and makes no pixels: "
                f"bring {PIXELS} of fun-research/TiTok beside it, or give the second stage's file"
            )
        added = {f"pixel_{k}": t for k, t in files.pixels.state.items() if k.startswith(PIXEL_PARTS)}
        notes |= {name: f"{name.removeprefix('pixel_')} of {PIXELS}" for name in added}
        others += [k for k in files.pixels.state if not k.startswith(PIXEL_PARTS)]
        state = state | added
    with torch.device("meta"):
        peer = TiTok(config)
    kept, rows = sort_tensors(state, peer, notes, others)
    bad = [row for row in rows if row.status in ("missing", "unexpected", "wrong shape")]
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise ConfigError(
            f"{files.weights.path} is no whole TiTok or One-D-Piece ({bad[0].name} is {bad[0].status}, "
            f"{bad[0].reason}{more}): {files.remedy}"
        )
    peer.load_state_dict(kept, assign=True)
    peer.name = PEER + files.name
    peer.report = {
        "peer": peer.name, "source": files.weights.source, "sha256": files.weights.sha256,
        "config": files.config_source, "license": files.license, **peer.card,
        "tokens": config.num_latent_tokens, "codebook_size": config.codebook_size,
        "legacy": config.legacy, "legacy_because": because(config), "elastic": config.elastic,
        "image_size": config.image_size, "unexplained": peer.unexplained,
        "tensors": [row._asdict() for row in rows],
    }  # fmt: skip
    return peer.eval().requires_grad_(False)


def because(config: TiTokConfig) -> str:
    """Which tensors say whether a model is `legacy`."""
    if config.legacy:
        return "decoder.ffn.2 makes codes of another codebook, as of two stages alone"
    return "there is no decoder.ffn.2, and decoder.conv_out makes pixels"


def published_config(row: Published) -> TiTokConfig:
    """The network of a published peer, before its files are here."""
    small, sizes = row.kind == "two-stage", {"S": "small", "B": "base", "L": "large"}
    dim, codes = {"two-stage": (12, 4096), "one-stage": (64, 8192), "vae": (16, 0)}[row.kind]
    encoder, decoder = (sizes[letter] for letter in row.sizes)
    elastic = row.tokens == 256 and small
    return TiTokConfig(encoder, decoder, row.tokens, dim, codes, 256, 16, 16, small, small, elastic)


def size_of(row: Published) -> str:
    """Of its weights, float32: 2.6 GB."""
    with torch.device("meta"):
        count = sum(p.numel() for p in TiTok(published_config(row)).parameters())
    return f"{count * 4 / 1e9:.1f} GB"
