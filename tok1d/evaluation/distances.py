"""How far apart two sets of images are, by their features [N, D]: Fréchet distance, KID.

    frechet(originals, reconstructions)     # float32 features of `tok1d.evaluation.features`, or of a
    `FeatureStore`

Features may be tensors or numpy arrays, memory-mapped ones too: they are read in blocks, and what is computed
from them is float64. A tensor's own device does the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Features = Tensor | np.ndarray  # [N, D]
BLOCK = 2048  # rows of features in float64 at once: 34 MB of Inception's
PAIRS = 2**24  # distances between images at once: 134 MB


# ---- Fréchet distance ----


class Gaussian(NamedTuple):
    """The normal distribution of some features: all that the Fréchet distance knows of a set."""

    mean: Tensor  # [D]
    root: Tensor  # [min(N, D), D]: rootᵀ root is the covariance (over N - 1)
    count: int  # N


def blocks(features: Features, rows: int = BLOCK) -> Iterator[Tensor]:
    """[N, D] -> float64 [≤ rows, D] at a time."""
    for start in range(0, len(features), rows):
        yield take(features, slice(start, start + rows))


def take(features: Features, rows: slice | np.ndarray) -> Tensor:
    """Some rows, float64."""
    chosen = features[rows]
    return chosen.double() if isinstance(chosen, Tensor) else torch.from_numpy(np.array(chosen, np.float64))


def gaussian(features: Features) -> Gaussian:
    """Mean and covariance of features [N, D], N > 1.

    Of fewer images than dimensions, the centred features themselves are a root of the covariance; of more,
    it is their QR decomposition's triangle, block by block. No matrix is squared, so nothing is lost.
    """
    count, dim = features.shape
    mean = sum(block.sum(0) for block in blocks(features)) / count
    root = torch.empty(0, dim, dtype=torch.float64, device=mean.device)
    for block in blocks(features):
        root = torch.cat([root, (block - mean) / (count - 1) ** 0.5])
        if len(root) > dim:
            root = torch.linalg.qr(root, mode="r").R
    return Gaussian(mean, root, count)


def frechet(a: Features | Gaussian, b: Features | Gaussian) -> float:
    """The squared Fréchet distance of the normal distributions of two sets (FID, arXiv:1706.08500), >= 0.

    |mean_a - mean_b|² + tr(A + B - 2 (A B)^½) of covariances A = RᵀR and B = SᵀS. The last trace is the sum
    of the singular values of R Sᵀ: a matrix of N x N for few images, D x D for many, and no matrix root at
    all. Equal sets give 0 up to rounding. Of finitely many images it is biased upwards: see
    `small_sample_warning`.
    """
    a, b = (x if isinstance(x, Gaussian) else gaussian(x) for x in (a, b))
    common = torch.linalg.svdvals(a.root @ b.root.T).sum()
    spread = a.root.square().sum() + b.root.square().sum() - 2 * common
    return max(0.0, ((a.mean - b.mean).square().sum() + spread).item())


def frechet_infinity(a: Features, b: Features, points: int = 15, seed: int = 0) -> float:
    """FID∞ (Chong & Forsyth, arXiv:1911.07023): the Fréchet distance that infinitely many images would have.

    The distance of N images is one of infinitely many plus c / N, nearly: a line through the distances of
    random subsets of `points` sizes, here of both sets at once (of two sets of one size the same images, as
    reconstructions and their originals belong together), is followed to 1 / N = 0. That holds for a few times
    more images than dimensions; of fewer, it corrects only part of the bias. Can be slightly negative.
    """
    count, dim = min(len(a), len(b)), a.shape[1]
    rng = np.random.default_rng(seed)
    shares = np.linspace(max(count // 10, min(count // 2, 5 * dim // 2)) / count, 1, points)
    values = []
    for share in shares:
        chosen = [np.sort(rng.permutation(len(x))[: max(2, round(share * len(x)))]) for x in (a, b)]
        if len(a) == len(b):
            chosen[1] = chosen[0]
        values.append(frechet(a[chosen[0]], b[chosen[1]]))
    return float(np.polyfit(1 / shares, values, 1)[1])


def small_sample_warning(count: int, dim: int) -> str | None:
    """What to tell whoever reads a Fréchet distance of `count` images in `dim` dimensions; None: nothing."""
    if count > dim:
        return None
    return (
        f"a Fréchet distance of {count} images in {dim} dimensions is biased upwards, and compares only with "
        f"others of {count} images: look at KID too, which is unbiased, or take more than {dim} images, from "
        f"which FID∞ can remove the bias"
    )


# ---- kernel distance ----


def kid(
    a: Features, b: Features, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Kernel Inception distance (arXiv:1801.01401): mean and standard deviation over random subsets.

    The unbiased estimate of the squared maximum mean discrepancy under the kernel (x·y / D + 1)³. Near 0 for
    sets that are alike, slightly below for equal ones. The same draws, and numbers, as torch-fidelity. Of
    fewer images than `subset_size`, all are taken: then there is but one subset, and the deviation is 0.
    """
    values = kid_of_subsets(a, b, subsets, subset_size, seed)
    return float(values.mean()), float(values.std())


def kid_of_subsets(
    a: Features, b: Features, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> np.ndarray:
    """The same for each subset; sets of the same sizes are drawn from alike."""
    size = min(subset_size, len(a), len(b))
    if size == len(a) == len(b):
        subsets = 1
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x, y = (take(f, rng.choice(len(f), size, replace=False)) for f in (a, b))
        within = sum(k.sum() - k.diagonal().sum() for k in (kernel(x, x), kernel(y, y)))
        values.append((within / (size * (size - 1)) - 2 * kernel(x, y).mean()).item())
    return np.array(values)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """[N, D], [M, D] -> [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


# ---- distances between single images ----


def squared_distances(a: Features, b: Features) -> Iterator[tuple[slice, Tensor]]:
    """Some rows of `a`, and their squared distances from all of `b` [m, M], until all rows were there."""
    rows = max(1, PAIRS // len(b))
    for i, block in enumerate(blocks(a, rows)):
        squares = [
            block.square().sum(1)[:, None] + other.square().sum(1) - 2 * block @ other.T
            for other in blocks(b)
        ]
        yield slice(i * rows, (i + 1) * rows), torch.cat(squares, 1).clamp_min(0)
