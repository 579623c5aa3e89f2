"""The linear code: an image as a mean and a few rounded numbers, the line that a trained tokenizer has to
beat.

    code = LinearTokenizer(image_size=64, num_tokens=64)
    code.fit(images)                           # uint8 [3, h, w] each; seconds on one core
    ids = code.encode(images)                  # float [B, 3, S, S] in 0 … 1 -> int64 [B, 64]
    again = code.decode_ids(ids[:, :8])        # any prefix -> float [B, 3, S, S]

A Karhunen–Loève transform: subtract the mean image, project on the leading eigenvectors of the training
images' covariance. Then the digits of the tokens (8, 8, 8, 5, 5, 5 values in each, as FSQ's) are given away
greedily: each next one to the coefficient with the most variance that is still unexplained, whose remainder
it rounds. So coefficients are refined several times, and every prefix of the digits is the best start there
is.

The covariance is not taken of pixels but of the strongest frequencies of the images' cosine transform: -
eigenvectors are smooth, so 1,024 of 12,288 numbers hold all that the first 64 tokens can say (within 0.02
dB); - a mirrored image has the same frequencies with another sign in the odd ones, so mirrored copies are
free: the
  covariance falls into an even and an odd half, each with an exact eigendecomposition and no random numbers;
- frequencies do not depend on the number of pixels, so images of 256 pixels and more are fitted as they are;
- frequencies of natural images are nearly uncorrelated, so shrinking the correlations (Ledoit & Wolf 2004)
  counters overfitting to few images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Replacing = Callable[[Path], AbstractContextManager[Path]]  # a temporary name to write a file to
LINEAR_VERSION = 1  # changes with what it computes
LEVELS = (8, 8, 8, 5, 5, 5)
WIDTHS = (1.3, 1.625, 1.95, 2.275, 2.6)  # half the width of a uniform grid, in standard deviations
FREQUENCIES = 48  # a side and color, that are looked at
CROPS = 9  # squares of an image, evenly along its longer side
BATCH = 256  # images at once while fitting


class LinearTokenizer(nn.Module):
    """Fitted numbers are buffers, in float32. A decoded image is `mean + Σ_d tables[d, digit d] · basis[:,
    owners[d]]`, in frequencies. `grid` "uniform" rounds on uniform grids, the best of five widths, as the
    line to beat does; "centroids" moves their points to where the numbers are (Lloyd 1982), 0.1 … 0.3 dB
    better, and shrinks the correlations by a tenth.
    """

    mean: Tensor
    places: Tensor
    basis: Tensor
    owners: Tensor
    tables: Tensor
    borders: Tensor
    cosines: Tensor
    opponents: Tensor
    radix: Tensor
    bases: Tensor

    def __init__(
        self, image_size: int, num_tokens: int, levels: Sequence[int] = LEVELS, grid: str = "uniform"
    ):
        super().__init__()
        self.image_size, self.num_tokens, self.levels, self.grid = image_size, num_tokens, tuple(levels), grid
        self.frequencies = side = min(FREQUENCIES, image_size)
        digits = num_tokens * len(self.levels)
        kept = min(max(1024, 3 * digits), 3 * side * side)  # the strongest frequencies
        columns = min(digits, int(0.85 * digits) + 6, kept)  # coefficients: some hold several digits
        self.register_buffer("mean", torch.zeros(3 * side * side))
        self.register_buffer("places", torch.arange(kept))  # of the kept frequencies
        self.register_buffer("basis", torch.zeros(kept, columns))  # columns of length 1
        self.register_buffer("owners", torch.zeros(digits, dtype=torch.long))  # a digit -> its column
        self.register_buffer("tables", torch.zeros(digits, max(self.levels)))  # digits' values
        self.register_buffer("borders", torch.full((digits, max(self.levels) - 1), math.inf))  # between them
        self.register_buffer("cosines", cosines(image_size, side), persistent=False)  # [L, S]
        self.register_buffer("opponents", opponents(), persistent=False)  # [3, 3]
        radix = [math.prod(self.levels[:i]) for i in range(len(self.levels))]
        self.register_buffer("radix", torch.tensor(radix), persistent=False)
        self.register_buffer("bases", torch.tensor(self.levels), persistent=False)

    def freeze(self, what: str) -> None:
        """As `Encoder.freeze`: there is nothing here that learns."""

    # ---- images to ids and back ----

    def encode(self, images: Tensor, num_tokens: int | None = None) -> Tensor:
        """[B, 3, S, S] in 0 … 1 -> ids [B, num_tokens] int64, each below the product of `levels`."""
        count = num_tokens or self.num_tokens
        digits = self.encode_digits(images, count * len(self.levels)).unflatten(1, (count, -1))  # [B, K, 6]
        return (digits * self.radix).sum(-1)

    def decode_ids(self, ids: Tensor, places: Tensor | None = None) -> Tensor:
        """ids [B, k] of the first tokens, or of those at `places` [B, k] -> [B, 3, S, S] in 0 … 1."""
        if places is not None:
            places = (
                places[..., None] * len(self.levels) + torch.arange(len(self.levels)).to(places)
            ).flatten(1)
        return self.decode_digits((ids[..., None] // self.radix % self.bases).flatten(1), places)

    @torch.no_grad()
    def encode_digits(self, images: Tensor, count: int) -> Tensor:
        """[B, 3, S, S] in 0 … 1 -> the first `count` digits, int64 [B, count]."""
        return self.round(self.coefficients(images), count)

    @torch.no_grad()
    def decode_digits(self, digits: Tensor, places: Tensor | None = None) -> Tensor:
        """The first digits [B, n], any number, or those at `places` [B, n] -> [B, 3, S, S] in 0 … 1."""
        return self.draw(self.rounded(digits, places))

    def coefficients(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] in 0 … 1 -> their projections on the columns of `basis`, [B, columns]."""
        with torch.autocast(images.device.type, enabled=False):
            return (self.analyze(images.float()) - self.mean)[:, self.places] @ self.basis

    @torch.no_grad()
    def round(self, coefficients: Tensor, count: int) -> Tensor:
        """[B, columns] -> the first `count` digits, int64 [B, count]."""
        rest = coefficients.T.clone(memory_format=torch.contiguous_format)
        digits = []
        for d, column in enumerate(self.owners[:count].tolist()):
            digit = torch.bucketize(rest[column], self.borders[d])
            rest[column] -= self.tables[d][digit]
            digits.append(digit)
        return torch.stack(digits, 1)

    def rounded(self, digits: Tensor, places: Tensor | None = None) -> Tensor:
        """Digits as in `decode_digits` -> the coefficients that they say, [B, columns]."""
        if places is None:
            places = torch.arange(digits.shape[1], device=digits.device).expand(len(digits), -1)
        values = self.tables[places].gather(2, digits[..., None])[..., 0]  # [B, n]
        coefficients = values.new_zeros(len(digits), self.basis.shape[1])
        return coefficients.scatter_add_(1, self.owners[places], values)

    def draw(self, coefficients: Tensor) -> Tensor:
        """[B, columns] -> [B, 3, S, S] in 0 … 1."""
        with torch.autocast(coefficients.device.type, enabled=False):
            spectrum = self.mean.expand(len(coefficients), -1).clone()
            spectrum[:, self.places] += coefficients @ self.basis.T
            return self.synthesize(spectrum).clamp(0, 1)

    @property
    def spread(self) -> Tensor:
        """About the standard deviation of each coefficient, [columns]: that of its first digit's points."""
        first = (self.owners[:, None] == torch.arange(self.basis.shape[1], device=self.owners.device)).int()
        digit = first.argmax(0)  # [columns]
        return (self.tables.square().sum(1) / self.bases.repeat(self.num_tokens)).sqrt()[digit]

    def digits_of(self, bits: float) -> int:
        """How many digits `bits` pay for: of equal bits with another tokenizer's."""
        paid = torch.cumsum(self.bases.double().log2().repeat(self.num_tokens), 0)
        return int((paid <= bits + 1e-6).sum())

    def analyze(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> the low frequencies of lightness and two color differences, [B, 3 L L]."""
        spectrum = self.cosines @ images @ self.cosines.T  # [B, 3, L, L]
        return torch.einsum("ac,bchw->bahw", self.opponents, spectrum).flatten(1)

    def synthesize(self, spectrum: Tensor) -> Tensor:
        """The adjoint of `analyze`, and its inverse for images without higher frequencies."""
        spectrum = spectrum.view(-1, 3, self.frequencies, self.frequencies)
        colors = torch.einsum("ac,bahw->bchw", self.opponents, spectrum)
        return self.cosines.T @ colors @ self.cosines

    # ---- fitting ----

    @torch.no_grad()
    def fit(self, images: Sequence[Tensor]) -> LinearTokenizer:
        """Fit to images, uint8 [3, h, w] each with a shorter side of `image_size`, and to their mirror
        images.

        Of longer ones some squares are taken. Deterministic, without random numbers. Raises `ValueError` for
        fewer than 2 images.
        """
        if len(images) < 2:
            raise ValueError(f"a linear code is fitted to 2 images or more, here are {len(images)}")
        odd = (torch.arange(self.frequencies) % 2 == 1).expand(3, self.frequencies, -1).flatten()
        self._choose_frequencies(images, odd)
        rows = torch.cat(
            [(self.analyze(b) - self.mean)[:, self.places] for b in batches(images, self.image_size)]
        )  # [M, kept]
        columns_odd = self._fit_basis(rows, odd[self.places])
        numbers = rows @ self.basis
        del rows
        mirrored = torch.where(columns_odd, -numbers, numbers)
        self._give_digits(torch.cat([numbers, mirrored]).T.contiguous())
        return self

    def fit_once(
        self, images: Sequence[Tensor], fingerprint: str, cache: Path, replacing: Replacing
    ) -> LinearTokenizer:
        """`fit`, or what an earlier fit to the images of this fingerprint left in the folder `cache`, which
        `tok1d.system.files.replacing` writes to.
        """
        key = f"{self.image_size}px-{self.num_tokens}-{'.'.join(map(str, self.levels))}-{self.grid}"
        file = cache / f"linear-{fingerprint}-{key}-v{LINEAR_VERSION}.safetensors"
        if file.exists():
            self.load_state_dict(load_file(file))
            return self
        self.fit(images)
        with replacing(file) as temporary:
            save_file(self.state_dict(), temporary)
        return self

    def _choose_frequencies(self, images: Sequence[Tensor], odd: Tensor) -> None:
        """The mean of all images and their mirror images, and the frequencies of most variance."""
        count = 0
        total = squares = torch.zeros(len(odd), dtype=torch.float64)
        for batch in batches(images, self.image_size):
            spectrum = self.analyze(batch).double()
            count, total, squares = (
                count + len(batch),
                total + spectrum.sum(0),
                squares + spectrum.square().sum(0),
            )
        mean = torch.where(odd, 0.0, total / count)
        variance = squares / count - mean.square()
        self.mean.copy_(mean)
        self.places.copy_(variance.argsort(descending=True, stable=True)[: len(self.places)])

    def _fit_basis(self, rows: Tensor, odd: Tensor) -> Tensor:
        """Leading eigenvectors of the covariance, its even and odd half apart -> which columns are odd."""
        values, vectors, halves = [], [], []
        for half in (~odd, odd):
            x = rows[:, half]
            covariance = (x.T @ x).double() / len(x)
            variances = covariance.diagonal().clone()
            covariance.mul_(0.9 if self.grid == "centroids" else 1.0).diagonal().copy_(variances)
            value, vector = torch.linalg.eigh(covariance)
            vector *= vector.gather(0, vector.abs().argmax(0, keepdim=True)).sign()  # LAPACK's is arbitrary
            full = torch.zeros(len(odd), len(value))
            full[half] = vector.float()
            values.append(value)
            vectors.append(full)
            halves.append(torch.full((len(value),), bool(half is odd)))
        leading = torch.cat(values).argsort(descending=True, stable=True)[: self.basis.shape[1]]
        self.basis.copy_(torch.cat(vectors, 1)[:, leading])
        return torch.cat(halves)[leading]

    def _give_digits(self, rest: Tensor) -> None:
        """Remainders [columns, M], of which each digit in turn explains a part."""
        unexplained = rest.square().mean(1)
        for d in range(len(self.owners)):
            column, level = int(unexplained.argmax()), self.levels[d % len(self.levels)]
            points = uniform_grid(rest[column], level)
            if self.grid == "centroids":
                points = centroids(rest[column], points)
            borders = (points[1:] + points[:-1]) / 2
            rest[column] -= points[torch.bucketize(rest[column], borders)]
            unexplained[column] = rest[column].square().mean()
            self.owners[d] = column
            self.tables[d, :level], self.borders[d, : level - 1] = points, borders


def uniform_grid(x: Tensor, level: int) -> Tensor:
    """The best of five uniform grids of `level` points for numbers x [M]."""
    places = torch.linspace(-1, 1, level)
    grids = [places * width * x.square().mean().sqrt() for width in WIDTHS]
    return min(grids, key=lambda points: (x - nearest(x, points)).square().mean().item())


def nearest(x: Tensor, points: Tensor) -> Tensor:
    """The nearest of increasing points to each of x."""
    return points[torch.bucketize(x, (points[1:] + points[:-1]) / 2)]


def centroids(x: Tensor, points: Tensor, rounds: int = 20) -> Tensor:
    """Lloyd's algorithm for numbers x [M]: each point to the mean of what is nearest to it."""
    ordered = x.sort().values
    sums = torch.cat([x.new_zeros(1, dtype=torch.float64), ordered.double().cumsum(0)])
    for _ in range(rounds):
        ends = torch.searchsorted(ordered, (points[1:] + points[:-1]) / 2)
        ends = torch.cat([ends.new_zeros(1), ends, ends.new_full((1,), len(x))])
        inside = ends.diff()
        means = (sums[ends].diff() / inside.clamp_min(1)).to(x)
        points = torch.where(inside > 0, means, points)
    return points


def batches(images: Sequence[Tensor], size: int) -> Iterator[Tensor]:
    """Square crops of uint8 images, float [≤ BATCH, 3, size, size] in 0 … 1."""
    waiting: list[Tensor] = []
    for square in squares(images, size):
        waiting.append(square)
        if len(waiting) == BATCH:
            yield torch.stack(waiting).float() / 255
            waiting = []
    if waiting:
        yield torch.stack(waiting).float() / 255


def squares(images: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """[3, h, w] with a shorter side of `size` -> up to `CROPS` squares along the longer one."""
    for image in images:
        height, width = image.shape[-2:]
        excess = max(height, width) - size
        count = max(1, min(CROPS, excess + 1))
        for i in range(count):
            start = round(excess * (i / (count - 1) if count > 1 else 0.5))
            yield image[:, :, start : start + size] if width >= height else image[:, start : start + size]


def cosines(size: int, count: int) -> Tensor:
    """The first `count` rows of the orthonormal cosine transform of `size` numbers (DCT-II)."""
    angles = math.pi * torch.arange(count, dtype=torch.float64)[:, None] * (torch.arange(size) + 0.5) / size
    rows = angles.cos() * (2 / size) ** 0.5
    rows[0] /= 2**0.5
    return rows.float()


def opponents() -> Tensor:
    """Rotates RGB to lightness, red against blue, green against both; orthonormal, [3, 3]."""
    rows = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
    return rows / rows.norm(dim=1, keepdim=True)
