"""How the codes are used: counts of each code at each position, in one pass, and numbers made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.data.dataset import ImageDataset, to_float
from tok1d.evaluation.metrics.bootstrap import interval_of_mean
from tok1d.models.quantizers import NO_IDS
from tok1d.models.tokenizer import Tokenizer

CHUNK = 4096  # images whose ids are read back at once


class CodeCounts:
    """How often each of V codes stands at each of K positions. Memory is K × V for any number of images.

    The ids themselves go to `file`: an interval needs each image's own share of the entropy.
    """

    def __init__(self, num_tokens: int, codebook_size: int, file: Path):
        self.at = torch.zeros(num_tokens, codebook_size, dtype=torch.int32)
        self.file = file
        file.unlink(missing_ok=True)

    def add(self, ids: Tensor) -> Tensor:
        """ids [B, K] int64 -> how many different codes each image has, [B]."""
        ids = ids.cpu()
        K, V = self.at.shape
        flat = (ids + torch.arange(K) * V).flatten()
        self.at.view(-1).index_add_(0, flat, torch.ones(len(flat), dtype=torch.int32))
        with open(self.file, "ab") as out:
            out.write(ids.int().numpy().tobytes())
        return (ids.sort(1).values.diff(dim=1) != 0).sum(1) + 1

    def ids(self) -> np.ndarray:
        """All of them, int32 [N, K], memory-mapped."""
        return np.memmap(self.file, np.int32, mode="r").reshape(-1, len(self.at))

    def numbers(self, resamples: int) -> dict[str, Any]:
        """The share of codes that were used at all, and the perplexity, the effective number of codes.

        The perplexity's interval is a bootstrap over images of the entropy's linear part: plain resampling
        repeats images, so it finds fewer codes than there are. Usage is a fact about these very images.
        """
        counts = self.at.sum(0)
        bits = entropy(counts)
        numbers = {"code_usage": (counts > 0).float().mean().item(), "code_perplexity": 2.0**bits}
        if resamples:
            surprise = -(counts / counts.sum()).log2().numpy()  # bits of each code
            ids = self.ids()
            chunks = range(0, len(ids), CHUNK)
            shares = np.concatenate([surprise[ids[i : i + CHUNK]].mean(1) for i in chunks])  # mean: bits
            low, high = interval_of_mean(shares, resamples, seed=0)
            numbers["code_perplexity_interval"] = [float(2.0**low), float(2.0**high)]
        return numbers

    def positions(self) -> dict[str, list[float]]:
        """Of each position: entropy in bits, and the share of codes used."""
        return {
            "entropy": [entropy(row) for row in self.at],
            "usage": (self.at > 0).float().mean(1).tolist(),
        }


def entropy(counts: Tensor) -> float:
    """Bits."""
    share = counts.double() / counts.sum()
    return float(-torch.xlogy(share, share).sum()) / float(np.log(2))


@torch.no_grad()
def token_ids(tokenizer: Tokenizer, images: ImageDataset, count: int = 200, batch_size: int = 50) -> Tensor:
    """The ids of the first `count` images, [N, K] int64. Raises `ConfigError` if there are none."""
    if not tokenizer.quantizer.codebook_size:
        raise ConfigError(NO_IDS)
    tokenizer.eval()
    batches = images.batches(batch_size, count)
    return torch.cat([tokenizer.encode(to_float(batch.to(tokenizer.device))).cpu() for batch in batches])


@torch.no_grad()
def effects(tokenizer: Tokenizer, images: Tensor, shown: list[int]) -> Tensor:
    """Where an image changes when token k is that of the next image: mean absolute change in 0 … 1.

    images uint8 [B, 3, H, W], B > 1 -> [positions, B, H, W], a map for each position k of `shown`.
    """
    tokenizer.eval()
    codes = tokenizer.encode_codes(to_float(images.to(tokenizer.device))).codes
    before, maps = tokenizer.decode(codes), []
    for k in shown:
        other = codes.clone()
        other[:, k] = codes.roll(1, 0)[:, k]
        maps.append((tokenizer.decode(other) - before).abs().mean(1).cpu())
    return torch.stack(maps)


def frequent_pairs(ids: Tensor, count: int) -> list[tuple[int, int]]:
    """The `count` pairs of position and code that most images share; those of over half of them come last."""
    found = []
    for position, column in enumerate(ids.T):
        codes, times = column.unique(return_counts=True)
        found += [
            (2 * n > len(ids), -n, position, code)
            for code, n in zip(codes.tolist(), times.tolist(), strict=True)
        ]
    return [(position, code) for *_, position, code in sorted(found)[:count]]
