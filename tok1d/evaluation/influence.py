"""What each image contributes to a distance between sets: its influence, the derivative by its weight.

If image i weighed 1 + e instead of 1, the distance would change by e times its influence over N. Over all
images influences sum to 0, and their spread is that of the distance: its variance is theirs over N (the
infinitesimal jackknife, Jaeckel 1972; Efron 1982, "The jackknife, the bootstrap and other resampling plans").
One decomposition gives them all, where resampling needs one for each resample.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tok1d.evaluation.distances import Features, Gaussian, blocks, gaussian, kernel, take

OTHERS = 4000  # images that each one is compared with, for its influence on KID


class Influence(NamedTuple):
    value: float  # the distance
    a: np.ndarray  # [N], of each image of the first set
    b: np.ndarray  # [M], of each image of the second

    @property
    def parts(self) -> np.ndarray:
        """Of pairs, image i of `b` being made from image i of `a`: numbers [N] whose mean is the distance."""
        return self.value + self.a + self.b


def frechet_influence(a: Features, b: Features) -> Influence:
    """Of the Fréchet distance, exactly: image x of a set with mean m and covariance A changes it by

        2 (m - m_other)·(x - m) + |x - m|² - (x - m)ᵀ T (x - m)

    where T is the matrix that takes the one normal distribution to the other. With A = RᵀR, B = SᵀS and
    R Sᵀ = U diag(s) Vᵀ, the last term is that of U diag(s) Uᵀ at the coordinates of x in R.
    """
    ours, theirs = gaussian(a), gaussian(b)
    left, common, right = torch.linalg.svd(ours.root @ theirs.root.T, full_matrices=False)
    shift = ours.mean - theirs.mean
    value = shift.square().sum() + ours.root.square().sum() + theirs.root.square().sum() - 2 * common.sum()
    return Influence(
        max(0.0, value.item()),
        _by_set(a, ours, shift, left * common.sqrt()),
        _by_set(b, theirs, -shift, right.T * common.sqrt()),
    )


def _by_set(features: Features, own: Gaussian, shift: Tensor, half: Tensor) -> np.ndarray:
    """`half` [min(N, D), r]: half halfᵀ is U diag(s) Uᵀ."""
    few = len(own.root) == own.count  # the root is the centred features: image i's coordinates are row i of I
    project = half if few else torch.linalg.pinv(own.root, rtol=1e-10) @ half / (own.count - 1) ** 0.5
    found, start = [], 0
    for block in blocks(features):
        x = block - own.mean
        moved = project[start : start + len(x)] if few else x @ project
        found.append(
            2 * x @ shift + own.count * (x.square().sum(1) / (own.count - 1) - moved.square().sum(1))
        )
        start += len(x)
    values = torch.cat(found)
    return (values - values.mean()).cpu().numpy()


def kid_influence(a: Features, b: Features, value: float, seed: int = 0) -> Influence:
    """Of the squared maximum mean discrepancy, which `value` estimates: twice how much closer an image is to
    its own set than to the other, by `distances.kernel`, its mean over at most `OTHERS` images of each.
    """
    rng = np.random.default_rng(seed)
    chosen = [np.sort(rng.permutation(len(x))[:OTHERS]) for x in (a, b)]
    others = [take(x, rows) for x, rows in zip((a, b), chosen, strict=True)]
    return Influence(
        value,
        _to_sets(a, others[0], others[1], chosen[0]),
        _to_sets(b, others[1], others[0], chosen[1]),
    )


def _to_sets(features: Features, own: Tensor, other: Tensor, chosen: np.ndarray) -> np.ndarray:
    """`own` are the rows `chosen` of `features`: an image is not compared with itself."""
    found, start = [], 0
    position = torch.full((len(features),), -1, device=own.device)
    position[chosen] = torch.arange(len(chosen), device=own.device)
    for block in blocks(features, 1024):
        near = kernel(block, own)
        at = position[start : start + len(block)]
        itself = torch.where(at >= 0)[0]
        sums = near.sum(1)
        sums[itself] -= near[itself, at[itself]]
        found.append(2 * (sums / (len(own) - (at >= 0).to(sums)) - kernel(block, other).mean(1)))
        start += len(block)
    values = torch.cat(found)
    return (values - values.mean()).cpu().numpy()
