"""How far apart two sets of images are, by their features [N, D]: Fréchet distance, KID.

    frechet(originals, reconstructions)     # float32 features of `tok1d.evaluation.metrics.features`, or of a
    `FeatureStore`

Features may be tensors or numpy arrays, memory-mapped ones too: they are read in blocks, and what is computed
from them is float64. A tensor's own device does the work.

And what each image contributes to one: its influence, the derivative by its weight.

If image i weighed 1 + e instead of 1, the distance would change by e times its influence over N. Over all
images influences sum to 0, and their spread is that of the distance: its variance is theirs over N (the
infinitesimal jackknife, Jaeckel 1972; Efron 1982, "The jackknife, the bootstrap and other resampling plans").
One decomposition gives them all, where resampling needs one for each resample.

Precision, recall, density and coverage: which images of one set lie among their neighbors in another.

    near = NearestNeighbors(real, made)    # features [N, D] and [M, D]
    near.prdc()                            # of all images
    near.prdc(some, others)                # of some of the real and of the made ones, without a new distance
    near.random_halves()                   # of 100 random halves: for intervals

An image's neighborhood is the ball that reaches its k-th nearest neighbor in its own set, so that every
image has a say in what is found of the others. Thus the spread of these numbers is not that of a mean over
images (such intervals hold a difference in recall 68 times out of 100), nor do images left out one by one
show it (1.5 to 2 times too much). Random halves of the images do: given the whole, they are as uncertain as
the whole is (Shao & Wu 1989, "A general theory for jackknife variance estimation"). How often intervals from
them hold the true value is measured by tests/evaluation/test_bootstrap.py.
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
    count: int  # type: ignore[assignment]  # N; hides the method of tuples


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

    Of fewer images than dimensions, the centered features themselves are a root of the covariance; of more,
    it is their QR decomposition's triangle, block by block. No matrix is squared, so nothing is lost.
    """
    count, dim = features.shape
    sums = [block.sum(0) for block in blocks(features)]
    mean = sum(sums[1:], sums[0]) / count
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
        f"others of {count} images: look at KID too, which is unbiased, or take more than {dim} images; FID∞ "
        f"removes the bias of a few times as many, and only a part of it below"
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
    few = (
        len(own.root) == own.count
    )  # the root is the centered features: image i's coordinates are row i of I
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
