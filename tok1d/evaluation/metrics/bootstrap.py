"""95 % intervals: how much a number would change if other images of the same kind had been measured.

    low, high = interval_of_mean(psnrs)                     # of a mean over images
    low, high = interval_of_mean(psnrs_a - psnrs_b)         # of the difference of two runs on the same images
    low, high = interval_of_distance(frechet_influence(originals, reconstructions))  # of FID

All are bootstraps over images: resampled with replacement `resamples` times, with a seed of their own. Their
ends are the BCa ones (Efron 1987, "Better bootstrap confidence intervals"), which correct the plain
percentiles for skewness: PSNR and LPIPS have long tails.

A distance between sets is no mean over images, but nearly: it is resampled as the mean of what each image
contributes (`metrics.distances`). Resampling the sets themselves would need a matrix decomposition
each time, and would measure sets with 37 % fewer different images: such distances are larger, by a bias of
their own, and spread more. How often the intervals hold the true value is measured by
tests/evaluation/test_bootstrap.py.

Precision, recall, density and coverage are no means over images at all: theirs come from random halves of the
images (`metrics.distances`).
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from tok1d.evaluation.metrics.distances import Influence

LEVEL = 0.95
CHUNK = 2**22  # resampled values at once: 34 MB

Interval = tuple[float, float]


def interval_of_mean(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> Interval:
    """For the mean over all images of the kind that gave `values` [N]; a single one gives (nan, nan)."""
    return interval_of_sum([np.asarray(values, np.float64)], resamples, seed)


def interval_over_seeds(values: np.ndarray) -> Interval:
    """Of the mean of a few seeds' numbers [N], N ≥ 2: Student's, whose quantile is drawn from 4 million."""
    spread = np.std(values, ddof=1) / len(values) ** 0.5
    drawn = np.abs(np.random.default_rng(0).standard_t(len(values) - 1, 4_000_000))
    half = float(np.quantile(drawn, 0.95) * spread)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def interval_of_distance(
    influence: Influence,
    resamples: int = 2000,
    seed: int = 0,
    paired: bool = True,
    subsets: np.ndarray | None = None,
) -> Interval:
    """For the distance between two sets, to be expected of as many images: with its finite-N bias.

    `paired`: image i of the second set was made from image i of the first, as reconstructions are; they are
    resampled together. `subsets`: the distance was estimated as the mean of these, of random subsets (KID).
    Where a Fréchet distance is little more than its bias, the interval tends to be too wide.
    """
    samples = [influence.parts] if paired else [influence.value + influence.a, influence.b]
    return interval_of_sum([*samples, *deviations(subsets)], resamples, seed)


def deviations(subsets: np.ndarray | None) -> list[np.ndarray]:
    """What random subsets add to the spread: a sample with mean 0, or none where all images were taken."""
    return [] if subsets is None else [subsets - subsets.mean()]


def interval_by_halves(value: float, halves: np.ndarray) -> Interval:
    """For a number that is known in random halves of the images, too: it spreads as they do."""
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * float(halves.std(ddof=1))
    return value - reach, value + reach


def interval_of_sum(samples: list[np.ndarray], resamples: int = 2000, seed: int = 0) -> Interval:
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
