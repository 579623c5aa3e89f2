"""What touching tokens costs, on two threads:

python -m benchmarks.explore        ms from edited tokens to a picture, at 64 pixels (the shipped tokenizer)
                                    and at 256 (ViT-S, 128 tokens); seconds of an inpainting; dB in its holes
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tok1d.config.schema import DataConfig, TokenizerConfig
from tok1d.data.dataset import load_data, to_float
from tok1d.evaluation.metrics.images import psnr
from tok1d.explore.opened import SHIPPED, open_tokenizer
from tok1d.explore.optimize import inpaint
from tok1d.models.tokenizer import Tokenizer
from tok1d.system.files import scratch

THREADS, REPEATS, IMAGES = 2, 30, 20
LARGE = TokenizerConfig(
    image_size=256, encoder="vit", encoder_size="S", decoder_size="S", num_latent_tokens=128, elastic=True
)


def main(images: str = str(IMAGES)) -> None:
    torch.set_num_threads(THREADS)
    shipped = open_tokenizer(SHIPPED)
    for name, tokenizer in (("64 px, shipped", shipped), ("256 px, ViT-S", Tokenizer(LARGE).eval())):
        times = edits(tokenizer)
        print(f"{name}: {statistics.median(times):.1f} ms a token edit, at most {max(times):.1f}", flush=True)
    with scratch() as cache:
        _, val = load_data(DataConfig(toy_images=1, toy_val_images=int(images)), 64, cache)
        inpainting(shipped, val.center_crops(range(len(val))))


@torch.no_grad()
def edits(tokenizer: Tokenizer) -> list[float]:
    """Milliseconds to the picture of ids of which one was changed, each of `REPEATS` times."""
    ids = torch.zeros(1, tokenizer.config.num_latent_tokens, dtype=torch.long)
    times = []
    for i in range(1 + REPEATS):
        ids[0, i] = i
        times.append(1e3 * seconds(lambda: tokenizer.decode_ids(ids)))
    return times[1:]


def inpainting(tokenizer: Tokenizer, images: Tensor) -> None:
    """The middle hidden, of uint8 [B, 3, S, S]: seconds, and PSNR in the hole above that of the mean color of
    the known pixels.
    """
    side = images.shape[-1]
    hole = torch.zeros(side, side, dtype=torch.bool)
    hole[side // 4 : -side // 4, side // 4 : -side // 4] = True
    gains: dict[str, list[float]] = {"first": [], "last": []}
    times = []
    for image in images:
        mean = image[:, ~hole].float().mean(1)[:, None, None].expand_as(image)
        plain = inside(mean / 255, image, hole)

        def whole(image: Tensor = image, plain: float = plain) -> None:
            found = list(inpaint(tokenizer, image, hole))
            for name, edit in (("first", found[0]), ("last", found[-1])):
                gains[name].append(inside(to_float(edit.image), image, hole) - plain)

        times.append(seconds(whole))
    first, last = (statistics.fmean(values) for values in gains.values())
    print(f"inpainting, {len(images)} images: {statistics.median(times):.1f} s, at most {max(times):.1f}")
    print(f"in the hole {first:.2f} dB above the mean color at once, {last:.2f} in the end")


def inside(made: Tensor, image: Tensor, hole: Tensor) -> float:
    """PSNR in the hole, dB, of float [3, S, S] in 0 … 1 against uint8."""
    return psnr(made[None, :, hole][..., None], to_float(image)[None, :, hole][..., None]).item()


def seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
