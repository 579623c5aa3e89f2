"""Distances between sets: the known values, torch-fidelity's numbers, order, size and bias."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from tok1d.evaluation.metrics import distances
from tok1d.evaluation.metrics.distances import (
    NearestNeighbors,
    frechet,
    frechet_infinity,
    gaussian,
    half,
    kid,
    prdc,
    small_sample_warning,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def features(count: int, dim: int, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Correlated float32 features, as a network's are."""
    mix = np.random.default_rng(99).normal(size=(dim, dim)) / dim**0.5
    return (np.random.default_rng(seed).normal(size=(count, dim)) @ mix * scale + shift).astype(np.float32)


FEW, MANY = (40, 64), (300, 64)


@pytest.mark.parametrize("shape", [FEW, MANY])
def test_frechet_is_that_of_torch_fidelity(shape):
    a, b = features(*shape), features(*shape, seed=1, scale=0.8, shift=0.2)
    theirs = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(x).double()) for x in (a, b)), verbose=False
    )
    assert frechet(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)


def test_frechet_of_normal_distributions_with_diagonal_covariances_is_the_textbooks():
    x = torch.randn(1000, 6, dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0)).Q * 999**0.5  # covariance 1
    a, b = torch.arange(1.0, 7).double(), torch.arange(6.0, 0, -1).double()
    assert frechet(x * a, x.flip(1) * b + 2) == pytest.approx((a - b).square().sum().item() + 6 * 4, rel=1e-9)


@pytest.mark.parametrize("shape", [FEW, MANY])
def test_equal_sets_and_shuffled_ones_are_0_apart(shape):
    a = features(*shape) + 3
    order = np.random.default_rng(5).permutation(len(a))
    scale = a.var(0).sum()
    assert frechet(a, a) < 1e-12 * scale and frechet(a, a[order]) < 1e-9 * scale
    assert frechet(a, torch.from_numpy(a)) < 1e-12 * scale


@pytest.mark.parametrize("shape", [FEW, MANY])
def test_a_shuffled_order_changes_nothing(shape):
    a, b = features(*shape), features(*shape, seed=1, scale=0.9)
    order = np.random.default_rng(5).permutation(len(a))
    assert frechet(a, b[order]) == pytest.approx(frechet(a, b), rel=1e-9)
    assert kid(a, b[order]) == pytest.approx(kid(a, b), rel=1e-6)
    assert prdc(a, b[order]) == prdc(a, b) == prdc(a[order], b)


def test_blocks_change_nothing_and_bound_the_memory(monkeypatch, tmp_path):
    a, b = features(*MANY), features(280, 64, seed=1, scale=0.9)
    before = frechet(a, b), prdc(a, b)
    np.save(tmp_path / "a.npy", a)
    monkeypatch.setattr(distances.blocks, "__defaults__", (17,))
    monkeypatch.setattr(distances, "PAIRS", 1000)
    a = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert frechet(a, b) == pytest.approx(before[0], rel=1e-9) and prdc(a, b) == before[1]
    assert all(len(rows) <= 3 for _, rows in distances.squared_distances(a, b))


def test_a_gaussian_stands_for_its_features():
    a, b = features(*MANY), features(*FEW, seed=1)
    assert gaussian(a).root.shape == (64, 64) and gaussian(b).root.shape == (40, 64)
    assert frechet(gaussian(a), gaussian(b)) == frechet(a, b)


def test_features_that_are_always_0_do_no_harm():
    a, b = features(*MANY), features(*MANY, seed=1)
    with_dead = [np.concatenate([x, np.zeros_like(x)], 1) for x in (a, b)]
    assert frechet(*with_dead) == pytest.approx(frechet(a, b), rel=1e-9)


def test_infinity_removes_most_of_the_bias():
    """Two sets of one distribution are 0 apart; 400 images in 16 dimensions say more."""
    biased, corrected = [], []
    for seed in range(8):
        a, b = features(400, 16, seed=2 * seed), features(400, 16, seed=2 * seed + 1)
        biased.append(frechet(a, b))
        corrected.append(frechet_infinity(a, b, seed=seed))
    assert min(biased) > 0.02
    assert abs(np.mean(corrected)) < 0.15 * np.mean(biased)


def test_infinity_of_reconstructions_keeps_the_pairs():
    a = features(600, 16)
    assert abs(frechet_infinity(a, a)) < 1e-9


@pytest.mark.parametrize("subset_size", [30, 100])
def test_kid_is_that_of_torch_fidelity(subset_size):
    a, b = features(*MANY), features(100, 64, seed=1, scale=0.8, shift=0.2)
    theirs = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=10, kid_subset_size=subset_size, verbose=False
    )
    assert kid(a, b, 10, subset_size) == pytest.approx(tuple(theirs.values()), rel=1e-4)


def test_kid_is_unbiased_and_takes_all_where_there_are_few():
    apart = [kid(features(60, 16, seed=2 * i), features(60, 16, seed=2 * i + 1))[0] for i in range(200)]
    assert abs(np.mean(apart)) < 3 * np.std(apart) / 200**0.5
    a = features(60, 16)
    assert kid(a, a + 0.5)[1] == 0 and kid(a, a + 0.5)[0] > 20 * abs(np.mean(apart))
    assert abs(kid(a, a)[0]) < kid(a, a + 0.5)[0] / 3


@pytest.mark.parametrize("k", [3, 5])
def test_precision_and_recall_are_those_of_torch_fidelity(k):
    real, fake = features(*MANY), features(200, 64, seed=1, scale=0.9, shift=0.05)
    theirs = prc_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=k, verbose=False
    )
    ours = prdc(real, fake, k)
    assert 0.05 < ours.precision < 0.999
    assert ours[:2] == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)


def test_prdc_of_points_on_a_line():
    """Real 0 1 2 10, each with a neighborhood of radius 1 but the last, of 8; fake 2.5, 2.6 and 30."""
    real, fake = (torch.tensor(x)[:, None] for x in ([0.0, 1, 2, 10], [2.5, 2.6, 30.0]))
    found = prdc(real, fake, k=1)
    assert found.precision == pytest.approx(2 / 3)  # not 30
    assert found.recall == pytest.approx(1 / 4)  # 10, within 27.4 of 30; 2 is not within 0.1 of 2.5
    assert found.density == pytest.approx((2 + 2 + 0) / 3)  # 2.5 and 2.6: in the balls around 2 and 10
    assert found.coverage == pytest.approx(2 / 4)  # those of 2 and 10


@pytest.mark.parametrize("paired", [True, False])
def test_neighborhoods_in_a_half_are_those_of_the_half_alone(paired):
    real, made = (
        features(*MANY),
        features(300, 64, seed=1, scale=0.8) if paired else features(280, 64, seed=1),
    )
    near, rng = NearestNeighbors(real, made), np.random.default_rng(3)
    for _ in range(5):
        some = half(len(real), rng)
        others = some if paired else half(len(made), rng)
        assert near.prdc(some, others) == pytest.approx(prdc(real[some], made[others]))
    halves = near.random_halves(paired)
    assert all(len(values) == 100 and values.std() > 0 for values in halves.values())
    again = NearestNeighbors(real, made).random_halves(paired)
    assert all((again[name] == halves[name]).all() for name in halves)


def test_equal_sets_have_all_of_each_other():
    a = features(*MANY)
    assert prdc(a, a)[:2] == (1, 1) and prdc(a, a).coverage == 1
    away = prdc(a, a + 50)
    assert away == (0, 0, 0, 0)


def test_noise_that_grows_raises_every_distance():
    a, noise = features(400, 32), features(400, 32, seed=7)
    found = [a + strength * noise for strength in (0, 0.2, 0.4, 0.8, 1.6)]
    for distance in (frechet, lambda x, y: kid(x, y)[0]):
        values = [distance(a, b) for b in found]
        assert values == sorted(values) and len(set(values)) == len(values)
    for name in ("precision", "coverage"):
        values = [getattr(prdc(a, b), name) for b in found]
        assert values == sorted(values, reverse=True) and values[-1] < values[0]


def test_the_warning_names_both_counts_and_what_to_look_at():
    said = small_sample_warning(400, 2048)
    assert all(word in said for word in ("400 images", "2048 dimensions", "KID", "FID∞")) and "\n" not in said
    assert small_sample_warning(2049, 2048) is None
