"""Speed and memory of a training step, one fresh process a row:  python -m tok1d.bench

python -m tok1d.bench tokens     256 px, ViT-S/16 both sides, 16 … 256 tokens (default)
python -m tok1d.bench nano       64 px, nano, 1 … 64 tokens of an elastic tokenizer
python -m tok1d.bench loader     from JPEG files to batches; see tok1d.bench_loader
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from typing import Any

from tok1d import bench_loader

SUITES: dict[str, list[dict[str, Any]]] = {
    "tokens": [{"num_latent_tokens": k, "batch_size": 4} for k in (16, 32, 64, 128, 256)],
    "nano": [
        {"image_size": 64, "encoder_size": "nano", "decoder_size": "nano", "elastic": True, "batch_size": 32}
        | {"num_tokens": k}
        for k in (1, 2, 4, 8, 16, 32, 64)
    ],
}


def measure(row: dict[str, Any], steps: int = 5) -> dict[str, Any]:
    """Forward, backward and optimizer steps on random images; images/s, peak memory in GB, and the shapes."""
    import torch

    from tok1d.config import TokenizerConfig, TrainConfig
    from tok1d.losses import pixel_loss
    from tok1d.optimizers import build_optimizers
    from tok1d.tokenizer import Tokenizer

    config = TokenizerConfig(**{k: v for k, v in row.items() if k in TokenizerConfig.model_fields})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer(config).to(device)
    optimizers = build_optimizers(tokenizer, train := TrainConfig(batch_size=row["batch_size"]))
    images = torch.rand(train.batch_size, 3, config.image_size, config.image_size, device=device)
    for step in range(steps + 1):
        if step == 1:  # the first one warms up
            _wait(device)
            began = time.perf_counter()
        output = tokenizer(images, row.get("num_tokens"))
        (pixel_loss(output.images, images, train) + output.loss).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    _wait(device)
    rate = steps * train.batch_size / (time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 1024 * resource.getrusage(0).ru_maxrss
    return {
        "image": tuple(images.shape), "ids": tuple(output.ids.shape), "output": tuple(output.images.shape),
        "parameters": f"{sum(p.numel() for p in tokenizer.parameters()) / 1e6:.1f} M",
        "images/s": f"{rate:.1f}", "peak memory": f"{memory / 1e9:.2f} GB",
    }  # fmt: skip


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def main(suite: str = "tokens", *options: str) -> None:
    if suite == "loader":
        return bench_loader.main(*options)
    if suite not in SUITES:
        sys.exit(f"there is no suite {suite}: type one of {', '.join(SUITES)}, loader")
    for row in SUITES[suite]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # so that peak memory is this row's own
            print(
                json.dumps(row), "->", *(f"{k} {v}" for k, v in pool.apply(measure, (row,)).items()), sep="  "
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
