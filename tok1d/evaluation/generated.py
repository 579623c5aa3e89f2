"""Numbers of generated images, which have no originals: distances of sets to real ones, nearest real images.

gFID is the distance that rFID is, of generated images. It depends on how many there are, and on what they
are compared with: both are on the card and beside the number, and numbers that differ in them are refused
side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tok1d.config.registry import GENERATED
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import ImageDataset, to_float
from tok1d.evaluation.metrics.sets import SetMetrics, originals_of
from tok1d.evaluation.workers import UINT8
from tok1d.system.environment import made_with
from tok1d.system.files import scratch

THUMBNAIL = 16  # px, a side


@torch.no_grad()
def evaluate_generated(
    batches: Iterable[dict[int, Tensor]],
    reference: ImageDataset,
    which: str,
    config: EvalConfig,
    cache: Path | None = None,
    facts: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """`{"card", "results", "warnings"}` of generated images, by the distances of sets in `config.metrics`.

    Each of `batches` has the same samples at one or more lengths, uint8 [B, 3, S, S] by number of tokens.
    `reference` are real images, the ones that `which` says: "validation" or "training". `facts` of how they
    were made go onto the card. Raises `ConfigError` if the weights of a network cannot be had.
    """
    count = min(config.eval_images or len(reference), len(reference))
    with scratch() as folder:
        sets = SetMetrics(config, reference, None, folder, cache, [torch.device(device)])
        sets.paired = False
        samples, lengths = 0, set[int]()
        with sets:
            for name, extractor in sets.on(0).items():
                network = sets.networks[name]
                if network.writing:
                    for real in reference.batches(config.eval_batch_size, count):
                        network.originals.append(extractor(real.to(device)))
            for batch in batches:
                samples += len(next(iter(batch.values())))
                lengths |= batch.keys()
                for name, extractor in sets.on(0).items():
                    features = {k: extractor(images.to(device)) for k, images in batch.items()}
                    sets.networks[name].add_made(features)
        results = [{"num_tokens": k, "samples": samples} | numbers_at(sets, k) for k in sorted(lengths)]
    against = {"which": which, **originals_of(reference, count)}
    card: dict[str, Any] = {"images": samples, "image_size": reference.size, "reconstruction": UINT8.rule}
    card |= {"reference": against} | (facts or {})
    card["metrics"] = {name: own | {"reference": against} for name, own in sets.cards.items()}
    card["made_with"] = made_with(torch.device(device))
    return {"card": card, "results": results, "warnings": sets.warnings}


def numbers_at(sets: SetMetrics, count: int) -> dict[str, Any]:
    """The asked distances of one length, with their intervals."""
    found: dict[str, Any] = {}
    for name, distance in sets.numbers(count).items():
        name = GENERATED.get(name, name)
        found[name] = distance.value
        if distance.interval:
            found[f"{name}_interval"] = list(distance.interval)
    return found


def nearest_images(
    made: Tensor, images: ImageDataset, features: Callable[[Tensor], Tensor]
) -> tuple[list[int], np.ndarray]:
    """Of each generated image, uint8 [B, 3, S, S], the index of the real one that is most like it, and their
    distance [B]: is a prior copying what it saw?

    `features` map uint8 images to vectors [B, D]: `thumbnails`, or a network of `metrics.features`.
    """
    mine = features(made).float()
    best = torch.full((len(made),), torch.inf)
    index = torch.zeros(len(made), dtype=torch.long)
    first = 0
    for batch in images.batches(100):
        distances = torch.cdist(mine, features(batch).float())  # [B, b]
        least, where = distances.min(1)
        closer = least < best
        best, index = torch.where(closer, least, best), torch.where(closer, first + where, index)
        first += len(batch)
    return index.tolist(), best.numpy()


def thumbnails(images: Tensor) -> Tensor:
    """uint8 [B, 3, S, S] -> [B, 768], in 0 … 1."""
    return F.interpolate(to_float(images), (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True).flatten(1)
