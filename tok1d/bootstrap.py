"""95 % intervals: how much a number would change if other images of the same kind had been measured.

    low, high = interval_of_mean(psnrs)                             # of a mean over images
    low, high = interval_of_difference(psnrs_a, psnrs_b)            # of two runs on the same images
    low, high = interval_of_frechet(originals, reconstructions)     # of FID

All are bootstraps over images: resampled with replacement `resamples` times, with a seed of their own. Their
ends are the BCa ones (Efron 1987, "Better bootstrap confidence intervals"), which correct the plain
percentiles for skewness: PSNR and LPIPS have long tails.

A distance between sets is no mean over images, but nearly: it is resampled as the mean of what each image
contributes (`tok1d.influence`). Resampling the sets themselves would need a matrix decomposition each time,
and would measure sets with 37 % fewer different images: such distances are larger, by a bias of their own,
and spread more. How often the intervals hold the true value is measured by tests/test_bootstrap.py.

For precision, recall, density and coverage: the mean of what `distances.prdc_per_image` says of each image,
given the neighbourhoods of the set that was measured.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from tok1d.distances import Features
from tok1d.influence import frechet_influence, kid_influence

LEVEL = 0.95
CHUNK = 2**22  # resampled values at once: 34 MB

Interval = tuple[float, float]


def interval_of_mean(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> Interval:
    """For the mean over all images of the kind that gave `values` [N]; a single one gives (nan, nan)."""
    return _of_means([np.asarray(values, np.float64)], resamples, seed)


def interval_of_difference(a: np.ndarray, b: np.ndarray, resamples: int = 2000, seed: int = 0) -> Interval:
    """For the mean of a - b, of values [N] of the same images in the same order."""
    return interval_of_mean(np.asarray(a, np.float64) - np.asarray(b, np.float64), resamples, seed)


def interval_of_frechet(
    a: Features, b: Features, resamples: int = 2000, seed: int = 0, paired: bool = True
) -> Interval:
    """For the Fréchet distance to be expected of as many images: with its finite-N bias, not without it.

    `paired`: image i of `b` was made from image i of `a`, as reconstructions are; they are resampled
    together. Where the distance is little more than that bias, the interval tends to be too wide.
    """
    influence = frechet_influence(a, b)
    return _of_distance(influence.value, influence.a, influence.b, resamples, seed, paired)


def interval_of_frechet_difference(
    reference: Features, a: Features, b: Features, resamples: int = 2000, seed: int = 0
) -> Interval:
    """For frechet(reference, a) - frechet(reference, b), where image i of each was made from image i of the
    reference.
    """
    first, second = frechet_influence(reference, a), frechet_influence(reference, b)
    change = first.a + first.b - second.a - second.b
    return interval_of_mean(first.value - second.value + change, resamples, seed)


def interval_of_kid(
    value: float, a: Features, b: Features, resamples: int = 2000, seed: int = 0, paired: bool = True
) -> Interval:
    """For KID, of which `value` is the estimate (the mean that `distances.kid` returns)."""
    return _of_distance(value, *kid_influence(a, b, seed), resamples, seed, paired)


def _of_distance(
    value: float, a: np.ndarray, b: np.ndarray, resamples: int, seed: int, paired: bool
) -> Interval:
    return _of_means([value + a + b] if paired else [value + a, b], resamples, seed)


def _of_means(samples: list[np.ndarray], resamples: int, seed: int) -> Interval:
    """For the sum of the means of samples that are independent of each other."""
    if min(map(len, samples)) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    estimate = sum(sample.mean() for sample in samples)
    replicates = sum(_means(sample, resamples, rng) for sample in samples)
    weights = np.concatenate([(sample - sample.mean()) / len(sample) for sample in samples])
    if np.ptp(replicates) == 0:
        return float(estimate), float(estimate)
    acceleration = (weights**3).sum() / (6 * (weights**2).sum() ** 1.5)
    below = ((replicates < estimate).mean() + (replicates <= estimate).mean()) / 2
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 1 / resamples), 1 - 1 / resamples))
    ends = []
    for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        z = bias + normal.inv_cdf(tail)
        ends.append(float(np.quantile(replicates, normal.cdf(bias + z / (1 - acceleration * z)))))
    return ends[0], ends[1]


def _means(sample: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of each of `resamples` resamples of values [N]."""
    rows = max(1, CHUNK // len(sample))
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([sample[rng.integers(len(sample), size=(n, len(sample)))].mean(1) for n in sizes])
