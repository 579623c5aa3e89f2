"""What `tok1d sweep` adds to its runs, and what a second slot saves: those of params/sweeps/toy.yaml.

python -m benchmarks.sweep [runs=12]

The same runs three times, in folders of their own: one after the other by `tok1d run`, as a sweep on one
slot, and on two. Each has one thread, so that two runs need two cores. Then the last sweep again, which has
nothing to do. Minutes; other work on the machine disturbs it.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

from tok1d.sweeps.plan import PLACES, Cell, read_plan

SWEEP = Path("params/sweeps/toy.yaml")
SPEEDUP, OVERHEAD, AGAIN = 1.8, 5.0, 10.0  # what is asked for: times, seconds a run, seconds


def main(*arguments: str) -> None:
    """Print the measurements, and exit with status 1 if one misses what is asked for."""
    count = int(dict(argument.split("=", 1) for argument in arguments).get("runs", 12))
    cells = read_plan(SWEEP).cells[:count]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = write_sweep(folder, cells)
        one_by_one = sum(seconds(run_command(folder / "direct", cell)) for cell in cells)
        one = seconds(sweep_command(file, folder / "one"), "0")
        two = seconds(sweep_command(file, folder / "two"), "0,1")
        again = seconds(sweep_command(file, folder / "two"), "0,1")
        devices = used(folder / "two" / file.stem, cells)
    speedup, overhead = one / two, (one - one_by_one) / len(cells)
    print(f"{len(cells)} runs one after the other: {one_by_one:.0f} s")
    print(
        f"a sweep on one slot: {one:.0f} s, {overhead:.1f} s a run more (asked for: less than {OVERHEAD:.0f})"
    )
    print(f"on two: {two:.0f} s, {speedup:.2f} times as fast (asked for: at least {SPEEDUP})")
    print(f"again, with nothing to do: {again:.1f} s (asked for: less than {AGAIN:.0f})")
    print(f"runs on each device, one at a time: {devices}")
    sys.exit(int(speedup < SPEEDUP or overhead >= OVERHEAD or again >= AGAIN))


def write_sweep(folder: Path, cells: Sequence[Cell]) -> Path:
    """A sweep of just these runs, with nothing after them."""
    runs = [{k: v for k, v in c.params.items() if k not in PLACES} | {"run": c.name} for c in cells]
    file = folder / "bench.yaml"
    file.write_text(yaml.safe_dump({"cells": runs, "after_run": [], "after_sweep": []}), encoding="utf-8")
    return file


def sweep_command(file: Path, outputs: Path) -> list[str]:
    return ["sweep", str(file), "-o", str(outputs)]


def run_command(outputs: Path, cell: Cell) -> list[str]:
    params = outputs.parent / f"{cell.name}.yaml"
    params.write_text(yaml.safe_dump(cell.params | {"outputs": str(outputs)}), encoding="utf-8")
    return ["run", "notebooks/train.ipynb", "-f", str(params)]


def seconds(arguments: list[str], devices: str = "0") -> float:
    """Of `tok1d` with these arguments, from its start to its end."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "TOK1D_GPUS": devices, "TOK1D_HEADLESS": "1"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tok1d.cli", *arguments], env=env, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"tok1d {' '.join(arguments)} failed: {done.stderr[-1000:]}")
    return time.perf_counter() - began


def used(sweep: Path, cells: Sequence[Cell]) -> dict[str, int]:
    """How many runs saw each value of CUDA_VISIBLE_DEVICES; exits if two had the same one at a time."""
    found = [json.loads((sweep / cell.name / "status.json").read_text(encoding="utf-8")) for cell in cells]
    spans = sorted((status["gpu"], status["started"], status["ended"]) for status in found)
    for (device, _, end), (other, begin, _) in itertools.pairwise(spans):
        if device == other and begin < end:
            sys.exit(f"two runs had device {device} at a time")
    return dict(Counter(device for device, _, _ in spans))


if __name__ == "__main__":
    main(*sys.argv[1:])
