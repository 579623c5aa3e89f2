"""Intervals: 95 % of them cover the true value, over 500 simulated repeats; and what they are made of."""

import numpy as np
import pytest
import torch

from tok1d.evaluation.metrics import sets as numbers
from tok1d.evaluation.metrics.bootstrap import (
    deviations,
    interval_by_halves,
    interval_of_distance,
    interval_of_mean,
    interval_of_sum,
)
from tok1d.evaluation.metrics.distances import frechet, frechet_influence, kid, kid_influence
from tok1d.evaluation.metrics.sets import set_distances

REPEATS, TRUTH = 500, 4000
DIM = 4


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def coverage(intervals: list[tuple[float, float]], truth: float) -> float:
    assert len(intervals) == REPEATS
    return np.mean([low <= truth <= high for low, high in intervals])


def psnrs(rng: np.random.Generator, count: int) -> np.ndarray:
    """Skewed to the right, as PSNR is: mean 20 + 6 dB."""
    return 20 + rng.gamma(2.0, 3.0, count)


def reconstructions(rng: np.random.Generator, count: int, noise: float = 0.5, dim: int = DIM) -> tuple:
    """Features of originals and of what became of them, image by image."""
    original = rng.normal(size=(count, dim)) * np.linspace(1, 0.5, dim)
    return original, 0.7 * original + noise * rng.normal(size=original.shape) + 0.3


# ------------------------------------------------------------------------------ 92 … 98 % cover the truth


@pytest.mark.parametrize("count", [100, 400])
def test_intervals_of_a_skewed_mean(count):
    rng = np.random.default_rng(1)
    found = [interval_of_mean(psnrs(rng, count), seed=i) for i in range(REPEATS)]
    assert 0.92 <= coverage(found, 26) <= 0.98


def test_intervals_of_a_paired_difference():
    """The images differ by 4 dB, the two runs by 0.3 ± 0.5: only pairs can tell."""
    rng, found = np.random.default_rng(2), []
    for i in range(REPEATS):
        a = psnrs(rng, 100)
        found.append(interval_of_mean(a - (a - rng.gamma(0.36, 0.5 / 0.6, 100)), seed=i))
    assert 0.92 <= coverage(found, 0.3) <= 0.98
    assert np.mean([low > 0 for low, _ in found]) > 0.95


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_of_the_frechet_distance(paired):
    rng = np.random.default_rng(3)

    def draw() -> tuple:
        a, b = reconstructions(rng, 200)
        return (a, b) if paired else (a, reconstructions(rng, 150)[1])

    truth = np.mean([frechet(*draw()) for _ in range(TRUTH)])
    found = [interval_of_distance(frechet_influence(*draw()), 2000, i, paired) for i in range(REPEATS)]
    assert 0.92 <= coverage(found, truth) <= 0.98


def two_runs(rng: np.random.Generator, count: int) -> tuple:
    original, a = reconstructions(rng, count)
    return original, a, a + 0.3 * rng.normal(size=a.shape) + 0.1


@pytest.mark.parametrize(("metric", "subset"), [("rfid", 0), ("kid", 1000), ("kid", 25)])
def test_intervals_of_a_difference_of_distances(metric, subset, monkeypatch):
    """Of KID also where it is the mean over random subsets of 25 images, which add to the spread."""
    monkeypatch.setattr(numbers, "KID_SUBSETS", 20)
    monkeypatch.setattr(numbers, "KID_SUBSET", subset)
    rng, differences, found, without = np.random.default_rng(4), [], [], []
    for i in range(REPEATS):
        original, *runs = two_runs(rng, 100)
        a, b = (set_distances(metric, original, made, resamples=1)[metric] for made in runs)
        subsets = None if a.subsets is None else b.subsets - a.subsets
        differences.append(b.value - a.value)
        found.append(interval_of_sum([b.parts - a.parts, *deviations(subsets)], 1000, seed=i))
        without.append(interval_of_mean(b.parts - a.parts, 1000, seed=i))
    truth = np.mean(differences)
    assert 0.92 <= coverage(found, truth) <= 0.98
    assert (coverage(without, truth) < 0.9) == (subset == 25)


def test_intervals_of_what_lies_in_neighborhoods():
    """Of precision, recall, density and coverage, and of their differences."""
    rng, values, found = np.random.default_rng(5), {}, {}
    for _ in range(200):
        original, *runs = two_runs(rng, 100)
        a, b = (set_distances("prdc", original, made, resamples=1) for made in runs)
        for name in a:
            change = b[name].value - a[name].value
            interval = interval_by_halves(change, b[name].subsets - a[name].subsets)
            for key, value, ends in ((name, *a[name][:2]), (f"{name} difference", change, interval)):
                values.setdefault(key, []).append(value)
                found.setdefault(key, []).append(ends)
    assert len(values) == 8
    for name, drawn in values.items():
        truth = np.mean(drawn)
        assert 0.9 <= np.mean([low <= truth <= high for low, high in found[name]]) <= 0.99, name


def test_with_fewer_images_than_features_they_are_rather_too_wide():
    rng = np.random.default_rng(5)
    truth = np.mean([frechet(*reconstructions(rng, 40, dim=64)) for _ in range(TRUTH // 4)])
    draws = [reconstructions(rng, 40, dim=64) for _ in range(REPEATS)]
    found = [interval_of_distance(frechet_influence(*draw), seed=i) for i, draw in enumerate(draws)]
    assert coverage(found, truth) >= 0.92


def test_intervals_of_kid():
    rng = np.random.default_rng(6)

    def draw() -> tuple:
        return reconstructions(rng, 200)[0], reconstructions(rng, 200)[1]

    truth = np.mean([kid(*draw())[0] for _ in range(TRUTH // 4)])
    pairs = [draw() for _ in range(REPEATS)]
    influences = [kid_influence(*pair, kid(*pair)[0]) for pair in pairs]
    found = [interval_of_distance(x, seed=i, paired=False) for i, x in enumerate(influences)]
    assert 0.92 <= coverage(found, truth) <= 0.98


# ------------------------------------------------------------------------------ what they are made of


@pytest.mark.parametrize("counts", [(40, 40), (100, 100), (40, 100), (90, 100)])
def test_influence_is_the_derivative_by_the_weight_of_an_image(counts):
    """Of 40 images or 100 in 64 dimensions, one of them always 0, by automatic differentiation."""
    rng = np.random.default_rng(7)
    sets = [torch.from_numpy(rng.normal(size=(n, 64)) * np.linspace(1, 0, 64) + n / 100) for n in counts]
    weights = [torch.ones(n, dtype=torch.float64, requires_grad=True) for n in counts]
    roots, means = [], []
    for x, weight in zip(sets, weights, strict=True):
        mean = (weight[:, None] * x).sum(0) / weight.sum()
        roots.append((weight[:, None] / (len(x) - 1)).sqrt() * (x - mean))
        means.append(mean)
    common = torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc")
    spread = roots[0].square().sum() + roots[1].square().sum() - 2 * common
    ((means[0] - means[1]).square().sum() + spread).backward()
    found = frechet_influence(*sets)
    assert found.value == pytest.approx(frechet(*sets))
    for ours, weight, count in zip(found[1:], weights, counts, strict=True):
        theirs = count * (weight.grad - weight.grad.mean()).numpy()
        assert np.allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())


def test_influence_on_kid_is_what_leaving_an_image_out_changes():
    a, b = reconstructions(np.random.default_rng(9), 100)
    ours = kid_influence(a, b, kid(a, b)[0]).parts
    left_out = [kid(np.delete(a, i, 0), np.delete(b, i, 0))[0] for i in range(100)]
    jackknife = 99 * (kid(a, b)[0] - np.array(left_out))
    assert np.corrcoef(ours, jackknife)[0, 1] > 0.98
    assert np.std(ours) == pytest.approx(np.std(jackknife), rel=0.1)


def test_pairs_tell_smaller_differences_than_two_intervals():
    original, a = reconstructions(np.random.default_rng(10), 200)
    b = a + 0.05
    influences = [frechet_influence(original, made) for made in (a, b)]
    low, high = interval_of_mean(influences[0].parts - influences[1].parts)
    alone = interval_of_distance(influences[0])
    assert high - low < (alone[1] - alone[0]) / 3 and low < frechet(original, a) - frechet(original, b) < high


def test_an_interval_is_the_same_each_time_and_narrows_with_the_images():
    values = psnrs(np.random.default_rng(11), 1600)
    assert interval_of_mean(values) == interval_of_mean(values) != interval_of_mean(values, seed=1)
    widths = [np.ptp(interval_of_mean(values[:count])) for count in (100, 400, 1600)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.3)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.3)


def test_equal_values_and_too_few():
    assert interval_of_mean(np.full(10, 3.0)) == (3, 3)
    assert np.isnan(interval_of_mean(np.array([3.0]))).all()
    a, _ = reconstructions(np.random.default_rng(12), 50)
    assert np.allclose(interval_of_distance(frechet_influence(a, a)), 0, atol=1e-9)
