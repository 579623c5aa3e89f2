"""An evaluation beside PNG folders and torch-fidelity's command line: seconds for the same numbers; memory.

python -m benchmarks.evaluate FRAMES [inception_checkpoint=PATH] [images=400]
python -m benchmarks.evaluate memory [images=4000] [inception_checkpoint=PATH]

The first measures FID and KID of a folder's photographs at 256 px, at three token counts of an elastic
tokenizer with random weights. Ours in one process; theirs writes PNG folders, then calls `fidelity` for each
count. The second shows the peak memory of processes that evaluate 400 images and `images` (64 px, in memory
once, over and over): all metrics that need no weights, and the bookkeeping of codes; with
`inception_checkpoint` also rFID and KID, at one token count. Beside it the peak of anonymous memory: the
whole counts pages of files too, such as features that were read, which the system takes back when it needs
them.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.silent_choices import photographs
from tok1d.config.schema import EvalConfig, TokenizerConfig
from tok1d.data.dataset import ImageDataset
from tok1d.data.toy_roads.draw import draw_scene
from tok1d.evaluation.evaluate import evaluate, reconstruct
from tok1d.models.tokenizer import Tokenizer

COUNTS = (16, 32, 64)


def main(folder: str, *arguments: str) -> None:
    options = dict(argument.split("=", 1) for argument in arguments)
    if folder == "memory":
        for count in (400, int(options.get("images", 4000))):
            own, seconds, _, peak = measured(roads, count, options.get("inception_checkpoint", ""))
            print(f"{count} images: peak {peak:.0f} MB, anonymous {own:.0f} MB, {seconds:.0f} s", flush=True)
        return
    weights, count = options.get("inception_checkpoint", ""), int(options.get("images", 400))
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, way in {"tok1d": ours, "PNG folders and fidelity": theirs}.items():
            values, seconds, cpu, _ = measured(way, folder, count, weights, temporary)
            found[name] = seconds, cpu
            numbers = ", ".join(f"FID {fid:.4f} KID {kid:.6f}" for fid, kid in values)
            print(f"{name}: {seconds:.0f} s, of processors {cpu:.0f} s ({numbers})", flush=True)
    (wall, cpu), (their_wall, their_cpu) = found.values()
    shares = f"{wall / their_wall:.2f} of their time, {cpu / their_cpu:.2f} of their processor time"
    print(f"{count} images at {len(COUNTS)} token counts: {shares}")


def measured(function: Callable, *arguments: Any) -> tuple[Any, float, float, float]:
    """What a function gives in a process of its own; seconds and processor seconds, of the start and imports
    too; the peak, MB.
    """
    began, before = time.perf_counter(), processor_seconds()
    pool = multiprocessing.get_context("spawn").Pool(1)
    result, peak = pool.apply(with_peak, (function, *arguments))
    pool.close()
    pool.join()
    return result, time.perf_counter() - began, processor_seconds() - before, peak


def processor_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def with_peak(function: Callable, *arguments: Any) -> tuple[Any, float]:
    result = function(*arguments)
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def build(size: int) -> Tokenizer:
    torch.manual_seed(0)
    config = TokenizerConfig(
        image_size=size, encoder="vit", patch_size=16, num_latent_tokens=64, elastic=True
    )
    tokenizer = Tokenizer(config).eval()
    with torch.no_grad():  # the pixel head starts at 0
        for p in tokenizer.decoder.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return tokenizer


def ours(folder: str, count: int, weights: str, temporary: str) -> list[tuple[float, float]]:
    config = EvalConfig(
        token_counts=COUNTS, metrics="rfid,kid", inception_checkpoint=weights, eval_images=count, resamples=0
    )
    results = evaluate(build(256), photographs(folder), config)["results"]
    return [(row["rfid"], row["kid"]) for row in results]


def theirs(folder: str, count: int, weights: str, temporary: str) -> list[tuple[float, float]]:
    images, tokenizer = photographs(folder), build(256)
    first = 0
    for name in ("originals", *map(str, COUNTS)):
        Path(temporary, name).mkdir()
    for batch in images.batches(50, count):
        rows = {"originals": batch} | {str(k): x for k, x in reconstruct(tokenizer, batch, COUNTS).items()}
        for name, pictures in rows.items():
            for i, picture in enumerate(pictures.permute(0, 2, 3, 1).numpy(), first):
                Image.fromarray(picture).save(Path(temporary, name, f"{i:06}.png"))
        first += len(batch)
    command = [
        sys.executable, "-m", "torch_fidelity.fidelity", "--cpu", "--fid", "--kid", "--json", "--silent",
        "--no-cache", "--kid-subset-size", str(min(1000, first)), "--input2", f"{temporary}/originals",
    ]  # fmt: skip
    command += ["--feature-extractor-weights-path", weights] if weights else []
    found = []
    for k in COUNTS:
        said = subprocess.run(
            [*command, "--input1", f"{temporary}/{k}"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        values = json.loads(said[said.index("{") :])
        found.append((values["frechet_inception_distance"], values["kernel_inception_distance_mean"]))
    return found


class Roads(ImageDataset):
    """Toy roads, the same 50 over and over."""

    pictures: list[np.ndarray]

    def __init__(self, count: int, size: int = 64):
        pictures = [np.asarray(draw_scene(i, size)) for i in range(50)]
        super().__init__(size, [f"toy-{i}" for i in range(count)], None, "roads", {})
        object.__setattr__(self, "pictures", pictures)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.pictures[i % 50]


def roads(count: int, weights: str) -> float:
    """The peak of anonymous memory while that many images are evaluated, MB."""
    config = EvalConfig(token_counts=COUNTS)
    if weights:
        config = EvalConfig(token_counts=64, metrics="psnr,ssim,rfid,kid", inception_checkpoint=weights)
    peaks, done = [anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(max(peaks.pop(), anonymous()))

    watching = threading.Thread(target=watch)
    watching.start()
    evaluate(build(64), Roads(count), config)
    done.set()
    watching.join()
    return peaks[0]


def anonymous() -> float:
    """This process's memory that is no file's, MB; only Linux says it, elsewhere 0."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main(*sys.argv[1:])
