"""The fewest tokens that an image needs for a wished quality, and how many images of a data set need how
many.

    fewest_tokens(tokenizer, image, psnr=25)                 # 12; None: no count reaches it
    found = fewest_of_each(tokenizer, images, lpips=0.2)     # uint8 [B, 3, S, S] -> [12, 40, None …]
    needs(found, tokenizer.config.token_counts)              # rows: so many of the images need at most k

Quality need not rise with every token, so counts are tried upwards, none is skipped, and the first that
reaches the wish is the answer: that many tokens are what would be kept, whatever one more would do. Images
that have reached it are not decoded again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.parse import check_counts
from tok1d.config.registry import METRICS
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import ImageDataset, to_float, to_uint8
from tok1d.evaluation.metrics.images import FORMULAS, Measure, build_image_metrics
from tok1d.models.tokenizer import Tokenizer

Fewest = list[int | None]
EXAMPLE = "type psnr=25, or lpips=0.2"


def fewest_tokens(tokenizer: Tokenizer, image: Tensor, **wished: Any) -> int | None:
    """image uint8 [3, S, S]; `wished` as in `fewest_of_each`."""
    return fewest_of_each(tokenizer, image[None], **wished)[0]


def fewest_of_each(
    tokenizer: Tokenizer,
    images: Tensor,
    *,
    counts: Sequence[int] = (),
    lpips_checkpoint: str = "",
    **wish: float,
) -> Fewest:
    """images uint8 [B, 3, S, S] -> of each the first of `counts` (default 1, 2, 3 … K) whose saved
    reconstruction has the wished quality: one of psnr=dB, ssim, lpips or another metric of single images.

    Raises `ConfigError` for another wish, a count that the tokenizer has not, weights that cannot be had.
    """
    name, value = the_wish(wish)
    measure, (number,) = measure_of(name, tokenizer, lpips_checkpoint), METRICS[name].numbers.values()
    K = tokenizer.config.num_latent_tokens
    counts = sorted(counts) or (range(1, K + 1) if tokenizer.config.elastic else [K])
    check_counts([tokenizer.config, EvalConfig(token_counts=tuple(counts))])
    found: Fewest = [None] * len(images)
    waiting = torch.arange(len(images))
    with torch.no_grad():
        originals = to_float(images.to(tokenizer.device))
        codes = tokenizer.eval().encode_codes(originals, counts[-1]).codes  # a prefix is what fewer are
        for k in counts:
            if not len(waiting):
                break
            made = to_float(to_uint8(tokenizer.decode(codes[waiting, :k])))
            values = measure(made, originals[waiting])
            reached = (values >= value if number.higher_is_better else values <= value).cpu()
            for i in waiting[reached].tolist():
                found[i] = k
            waiting = waiting[~reached]
    return found


def fewest_in(tokenizer: Tokenizer, images: ImageDataset, most: int = 200, **wished: Any) -> Fewest:
    """`fewest_of_each` of a data set's images, at most `most` of them, evenly over all."""
    chosen, found = images.evenly_spaced(most), Fewest()
    for start in range(0, len(chosen), EvalConfig().eval_batch_size):
        some = chosen[start : start + EvalConfig().eval_batch_size]
        found += fewest_of_each(tokenizer, images.center_crops(some), **wished)
    return found


def needs(found: Fewest, counts: Iterable[int]) -> list[dict[str, Any]]:
    """A row for each count: how many images need at most as many tokens, and their share. Those that no
    count is enough for are in no row.
    """
    rows = []
    for count in counts:
        enough = sum(fewest is not None and fewest <= count for fewest in found)
        rows.append({"num_tokens": count, "images": enough, "share": enough / len(found)})
    return rows


def the_wish(wish: dict[str, float]) -> tuple[str, float]:
    """Its metric and number. Raises `ConfigError` unless it is one of single images."""
    if len(wish) != 1:
        raise ConfigError(f"there are {len(wish)} wishes, and there must be one: {EXAMPLE}")
    ((name, value),) = wish.items()
    if name not in FORMULAS and name != "lpips":
        raise ConfigError(f"{name} is no quality of a single image: {EXAMPLE}")
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name}={value!r} is no number: {EXAMPLE}")
    return name, value


def measure_of(name: str, tokenizer: Tokenizer, lpips_checkpoint: str) -> Measure:
    """Raises `ConfigError` if the images are too small for it, or its weights cannot be had."""
    config = EvalConfig(metrics=(name,), lpips_checkpoint=lpips_checkpoint)
    built, warnings = build_image_metrics(config, tokenizer.config.image_size, tokenizer.device)
    if not built:
        raise ConfigError(f"{warnings[0]}: {EXAMPLE}")
    (metric,) = built.values()
    return metric.measure
