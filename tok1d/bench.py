"""Measurements, each in one run:  python -m tok1d.bench [SUITE] [NAME=VALUE …]

step      a training step in float32, bf16 and compiled: images/s, time shares, utilisation (default)
tokens    the same for 16 … 256 tokens
loader    images/s from JPEG files: torchvision's ImageFolder, ours while decoding, ours from the cache
elastic   how elastic training should start: a figure of the loss for each schedule tried
protocol  how much silent choices of an evaluation move rFID: a table
evaluate  three token counts, against PNG folders and torch-fidelity's command line; peak memory
sweep     twelve small runs on one slot and on two, against the same runs one after the other
"""

from __future__ import annotations

import importlib
import sys

SUITES = {
    "step": "tok1d.bench_step",
    "tokens": "tok1d.bench_step",
    "loader": "tok1d.bench_loader",
    "elastic": "tok1d.bench_elastic",
    "protocol": "tok1d.bench_protocol",
    "evaluate": "tok1d.bench_evaluate",
    "sweep": "tok1d.bench_sweep",
}


def main(suite: str = "step", *arguments: str) -> None:
    if suite not in SUITES:
        sys.exit(f"there is no suite {suite}: type one of {', '.join(SUITES)}")
    module = importlib.import_module(SUITES[suite])
    module.main(suite, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
