"""How the codes are used: counts of each code at each position, in one pass, and numbers made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tok1d.evaluation.bootstrap import interval_of_mean

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
