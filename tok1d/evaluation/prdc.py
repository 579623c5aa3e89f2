"""Precision, recall, density and coverage: which images of one set lie among their neighbors in another.

    near = Neighborhoods(real, made)      # features [N, D] and [M, D]
    near.prdc()                         # of all images
    near.prdc(some, others)             # of some of the real and of the made ones, without a new distance
    near.random_halves()                          # of 100 random halves: for intervals

An image's neighborhood is the ball that reaches its k-th nearest neighbor in its own set, so that every
image has a say in what is found of the others. Thus the spread of these numbers is not that of a mean over
images (such intervals hold a difference in recall 68 times out of 100), nor do images left out one by one
show it (1.5 to 2 times too much). Random halves of the images do: given the whole, they are as uncertain as
the whole is (Shao & Wu 1989, "A general theory for jackknife variance estimation"). How often intervals from
them hold the true value is measured by tests/test_bootstrap.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tok1d.evaluation.distances import Features, squared_distances

HALVES = 100
REACH = 6  # times k neighbors are known of each image: a random half hardly ever lacks k of them


class PRDC(NamedTuple):
    precision: float  # share of made images inside the neighborhood of a real one
    recall: float  # share of real images inside the neighborhood of a made one
    density: float  # in how many real neighborhoods a made image is, over k: 1 where sets are alike
    coverage: float  # share of real images whose neighborhood has a made one


class Pairs(NamedTuple):
    """Made and real images that are close enough to matter: indices, and their squared distance."""

    made: np.ndarray
    real: np.ndarray
    squares: np.ndarray


def prdc(real: Features, made: Features, k: int = 5) -> PRDC:
    """Precision and recall (arXiv:1904.06991, with k = 3), density and coverage (arXiv:2002.09797, 5)."""
    return NearestNeighbors(real, made, k).prdc()


class NearestNeighbors:
    """Each distance is computed once, never more than `distances.PAIRS` at a time; only the nearest are kept.

    Of sets that are alike these are about `REACH` k for each image.
    """

    def __init__(self, real: Features, made: Features, k: int = 5):
        self.k = min(k, len(real) - 1, len(made) - 1)
        self.real, self.made = nearest(real, REACH * self.k), nearest(made, REACH * self.k)
        widest = torch.from_numpy(self.real[1][:, -1]), torch.from_numpy(self.made[1][:, -1])
        in_real, in_made = [], []
        for rows, squares in squared_distances(made, real):  # [m, N]
            squares = squares.cpu()
            in_real.append(pairs(squares, squares <= widest[0], rows.start))
            in_made.append(pairs(squares, squares <= widest[1][rows, None], rows.start))
        self.in_real, self.in_made = (
            Pairs(*map(np.concatenate, zip(*found, strict=True))) for found in (in_real, in_made)
        )

    def prdc(self, real: np.ndarray | None = None, made: np.ndarray | None = None) -> PRDC:
        """Of the images for which `real` [N] and `made` [M] are true; by default of all."""
        real = np.ones(len(self.real[0]), bool) if real is None else real
        made = np.ones(len(self.made[0]), bool) if made is None else made
        k = min(self.k, real.sum() - 1, made.sum() - 1)
        here = made[self.in_real.made] & real[self.in_real.real]
        here &= self.in_real.squares <= radii(*self.real, real, k)[self.in_real.real]
        there = made[self.in_made.made] & real[self.in_made.real]
        there &= self.in_made.squares <= radii(*self.made, made, k)[self.in_made.made]
        return PRDC(
            precision=different(self.in_real.made[here], made) / made.sum(),
            recall=different(self.in_made.real[there], real) / real.sum(),
            density=here.sum() / k / made.sum(),
            coverage=different(self.in_real.real[here], real) / real.sum(),
        )

    def random_halves(self, paired: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
        """Each number in `HALVES` random halves of the images. Sets of the same sizes are halved alike.

        `paired`: image i of `made` was made from image i of `real`; they are drawn together.
        """
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(HALVES):
            real = half(len(self.real[0]), rng)
            found.append(self.prdc(real, real if paired else half(len(self.made[0]), rng)))
        return dict(zip(PRDC._fields, np.array(found).T, strict=True))


def nearest(features: Features, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each image its nearest others in its own set: indices and squared distances, [N, ≤ count]."""
    count = min(count, len(features) - 1)
    found = [squares.topk(count + 1, largest=False) for _, squares in squared_distances(features, features)]
    indices = torch.cat([x.indices[:, 1:].int() for x in found])  # the first is the image itself
    return indices.cpu().numpy(), torch.cat([x.values[:, 1:] for x in found]).cpu().numpy()


def pairs(squares: Tensor, near: Tensor, first: int) -> Pairs:
    made, real = near.nonzero(as_tuple=True)
    return Pairs((made + first).int().numpy(), real.int().numpy(), squares[near].numpy())


def radii(indices: np.ndarray, squares: np.ndarray, here: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each image from its k-th nearest neighbor among those that are `here`, [N]."""
    enough = here[indices].cumsum(1, dtype=np.int32) >= k
    at = np.where(enough.any(1), enough.argmax(1), indices.shape[1] - 1)
    return squares[np.arange(len(squares)), at]


def different(indices: np.ndarray, among: np.ndarray) -> int:
    """How many different ones there are."""
    return int(np.count_nonzero(np.bincount(indices, minlength=len(among))))


def half(count: int, rng: np.random.Generator) -> np.ndarray:
    """True for half of them, [count]."""
    return rng.permutation(count) < count // 2
