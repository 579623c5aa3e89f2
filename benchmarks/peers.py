"""How fast peers' networks encode and decode here, beside their own arithmetic.

    python -m benchmarks.peers                      titok-s128, titok-bl64-vq, one-d-piece-s256
    python -m benchmarks.peers titok-l32 batch=16   any names of `tok1d.config.peers.PEERS`

Images/s at 256 px, batch 8, all tokens, float32 (of a GPU its default), the best of three after one; weights
are random, which changes no speed. On a CPU seconds are those that this process had its cores, so other
programs do not count. Utilization is the FLOPs of the network over its time and the device's peak: what a
large float32 matrix product reaches in the same process, just before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tok1d.config.peers import PEERS
from tok1d.models.peers import published_config
from tok1d.models.peers.titok import TiTok, TiTokConfig

DEFAULT = ("titok-s128", "titok-bl64-vq", "one-d-piece-s256")
BATCH = 8


def main(*arguments: str) -> None:
    """Print a row of each of the named peers."""
    batch = next((int(a.removeprefix("batch=")) for a in arguments if a.startswith("batch=")), BATCH)
    for name in [a for a in arguments if "=" not in a] or DEFAULT:
        facts = measure(published_config(PEERS[name]), batch)
        print(f"{name:>16}", *(f"{fact} {value}" for fact, value in facts.items()), sep="  ", flush=True)


@torch.no_grad()
def measure(config: TiTokConfig, batch: int = BATCH, repeats: int = 3) -> dict[str, Any]:
    """Images/s, FLOPs an image and utilization, of encoding and of decoding."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.device("meta"):
        peer = TiTok(config)
    peer = peer.to_empty(device=device).eval()
    generator = torch.Generator(device).manual_seed(0)
    for parameter in peer.parameters():
        parameter.normal_(0, 0.02, generator=generator)
    images = torch.rand(batch, 3, config.image_size, config.image_size, generator=generator, device=device)
    codes = peer.encode(images)
    peak = matrix_product(device, repeats)
    found: dict[str, Any] = {"parameters": f"{sum(p.numel() for p in peer.parameters()) / 1e6:.0f} M"}
    for name, function, given in (("encode", peer.encode, images), ("decode", peer.decode, codes)):
        count, seconds = flops(config, name, given[:1]), best(partial(function, given), repeats)
        found |= {
            f"{name}d images/s": round(batch / seconds, 2),
            f"{name} FLOPs": f"{count / 1e9:.1f} G an image",
            f"{name} utilization": f"{batch * count / seconds / peak:.0%}",
        }
    return found | {"peak": f"{peak / 1e9:,.0f} GFLOP/s, {torch.get_num_threads()} threads on {device}"}


def flops(config: TiTokConfig, name: str, given: Tensor) -> int:
    """Of encoding or decoding one image, without computing."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        getattr(TiTok(config), name)(given.to("meta"))
    return counter.get_total_flops()


def matrix_product(device: torch.device, repeats: int) -> float:
    """FLOP/s of float32."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device)
    return 2 * n**3 / best(lambda: a @ a, repeats)


def best(function: Callable[[], Any], repeats: int) -> float:
    """The least of a call's seconds."""
    cuda, seconds = torch.cuda.is_available(), []
    clock, share = (time.perf_counter, 1) if cuda else (time.process_time, torch.get_num_threads())
    for _ in range(1 + repeats):
        began = clock()
        function()
        if cuda:
            torch.cuda.synchronize()
        seconds.append((clock() - began) / share)
    return min(seconds[1:])


if __name__ == "__main__":
    main(*sys.argv[1:])
