"""Edits without a generator: the tokens of a frozen tokenizer are optimized (Lao-Beyer et al. 2025,
arXiv:2506.08257).

    for edit in inpaint(tokenizer, image, hole):         # known pixels stay, the hole becomes plausible
        show(edit.image, edit.step, edit.steps)          # to stop, stop asking
    for edit in resemble(tokenizer, image, other):       # closer to another image with every step
        ...

What is optimized are vectors in units of their own standard deviation: a token's before its quantizer, or
the coefficients of a linear code. Rounding passes gradients straight through, so each step's picture is that
of real ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.parse import check_counts
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import to_float, to_uint8
from tok1d.models.linear import LinearTokenizer
from tok1d.models.quantizers.base import straight_through
from tok1d.models.tokenizer import Tokenizer, described

STEPS = 30  # of Adam
NEAR, FAR = 0.01, 0.05  # its rates, standard deviations a step; at the first no token of a codebook moves
# Standard deviation of what tokens cannot say of known pixels, as if neighbors did not err alike: 0.04, which
# it is, leaves 0.4 of the 3.3 dB that `python -m benchmarks.explore` finds in holes, and 0.6 leaves 3.0.
NOISE = 0.16
SOLVING, PROJECTIONS = 60, 8  # rounds that find where to start
CLOSE = 1e-10  # of the squares that the solving begins with

Distance = Callable[[Tensor, Tensor], Tensor]  # two [1, 3, S, S] in 0 … 1 -> scalar


class Edit(NamedTuple):
    """The best of the steps so far."""

    step: int  # 0 … steps
    steps: int
    loss: float
    image: Tensor  # uint8 [3, S, S]
    ids: Tensor | None  # [K] int64; None: the quantizer has none
    decoded: Tensor  # uint8 [3, S, S], what the tokens alone say


class Space(Protocol):
    """Vectors [1, …] of unit variance, and the pictures of the ids that they round to."""

    rate: float  # of Adam, to fill a hole

    def encode(self, images: Tensor) -> Tensor: ...
    def decode(self, vectors: Tensor) -> tuple[Tensor, Tensor | None]: ...
    def given(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]: ...


class LinearSpace:
    """The coefficients that own a digit of the first `count` tokens, [1, columns]."""

    rate = NEAR

    def __init__(self, tokenizer: Tokenizer, count: int):
        self.code: LinearTokenizer = tokenizer.encoder
        self.refine, self.count, self.digits = tokenizer.refine, count, count * len(self.code.levels)
        self.spread = self.code.spread
        self.owned = torch.zeros_like(self.spread).index_fill(0, self.code.owners[: self.digits], 1.0)

    def encode(self, images: Tensor) -> Tensor:
        return self.code.coefficients(images) / self.spread * self.owned

    def decode(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        wanted = vectors * self.spread * self.owned
        digits = self.code.round(wanted, self.digits)
        images = self.code.draw(straight_through(wanted, self.code.rounded(digits)))
        ids = (digits.unflatten(1, (self.count, -1)) * self.code.radix).sum(-1)
        return images if self.refine is None else self.refine(images, self.count), ids

    @torch.no_grad()
    def given(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """The expected coefficients, were they Gaussian, given the pixels that are known: least squares by
        conjugate gradients, with all coefficients that there are. The prior's mean is 0.
        """
        mean = self.code.synthesize(self.code.mean[None])
        rest = self.project(torch.where(hole, 0.0, image - mean))
        found, direction = torch.zeros_like(rest), rest
        size = first = rest.square().sum()
        for _ in range(SOLVING):
            pixels = torch.where(hole, 0.0, self.code.synthesize(self.spectrum(direction)))
            moved = self.project(pixels) + NOISE**2 * direction
            length = size / (direction * moved).sum()
            found, rest = found + length * direction, rest - length * moved
            size, before = rest.square().sum(), size
            if size <= CLOSE * first:
                break
            direction = rest + size / before * direction
        return found * self.owned, torch.zeros_like(found)

    def spectrum(self, vectors: Tensor) -> Tensor:
        out = vectors.new_zeros(len(vectors), len(self.code.mean))
        out[:, self.code.places] = (vectors * self.spread) @ self.code.basis.T
        return out

    def project(self, images: Tensor) -> Tensor:
        """The adjoint of `synthesize(spectrum(…))`."""
        return self.code.analyze(images)[:, self.code.places] @ self.code.basis * self.spread


class TokenSpace:
    """What the encoder says of `count` tokens, before the quantizer, [1, K, in_dim]."""

    rate = FAR

    def __init__(self, tokenizer: Tokenizer, count: int, images: Tensor):
        self.tokenizer, self.count, self.spread = tokenizer, count, 1.0
        with torch.no_grad():
            self.spread = self.encode(images).std().item()

    def encode(self, images: Tensor) -> Tensor:
        return self.tokenizer.to_codes(self.tokenizer.encoder(images, self.count)) / self.spread

    def decode(self, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        codes, ids, *_ = self.tokenizer.quantizer(vectors * self.spread)
        return self.tokenizer.decode_unclamped(codes).images, ids

    @torch.no_grad()
    def given(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Alternating projections: onto what tokens can say, and onto the known pixels. The prior's mean is
        where they end.
        """
        for _ in range(PROJECTIONS):
            decoded, _ = self.decode(self.encode(image))
            image = torch.where(hole, decoded.clamp(0, 1), image)
        vectors = self.encode(image)
        return vectors, vectors


def inpaint(
    tokenizer: Tokenizer, image: Tensor, hole: Tensor, steps: int = STEPS, num_tokens: int | None = None
) -> Iterator[Edit]:
    """image uint8 [3, S, S], hole bool [S, S], True where pixels are hidden -> an `Edit` for each step from 0
    on: its `image` has the known pixels, and in the hole what tokens that fit them say.

    The loss is the squared error of the known pixels and the squared distance to what is expected, weighed
    as Gaussians (MAP). Raises `ConfigError` for a hole that is empty, everything, or of another size.
    """
    pixels, hole = checked(tokenizer, image, hole)
    mean = pixels[:, :, ~hole].mean(-1)[..., None, None]  # [1, 3, 1, 1]
    filled = torch.where(hole, mean, pixels)
    space = space_of(tokenizer, filled, num_tokens)
    start, expected = space.given(filled, hole)
    numbers = 3 * int((~hole).sum())

    def loss(decoded: Tensor, vectors: Tensor) -> Tensor:
        fit = (decoded - pixels)[:, :, ~hole].square().sum()
        return (fit + NOISE**2 * (vectors - expected).square().sum()) / numbers

    for edit in optimize(space, start, loss, steps, space.rate):
        yield edit._replace(image=torch.where(hole.cpu(), edit.decoded, image.cpu()))


def resemble(
    tokenizer: Tokenizer,
    image: Tensor,
    target: Tensor,
    steps: int = STEPS,
    num_tokens: int | None = None,
    distance: Distance = F.mse_loss,
) -> Iterator[Edit]:
    """image and target uint8 [3, S, S] -> an `Edit` for each step from the image's own tokens on, towards
    the target by `distance`: of pixels, or a `PerceptualLoss` of `tok1d.losses`.
    """
    pixels, aim = (as_batch(tokenizer, x) for x in (image, target))
    space = space_of(tokenizer, pixels, num_tokens)
    with torch.no_grad():
        start = space.encode(pixels)
    return optimize(space, start, lambda decoded, vectors: distance(decoded, aim), steps, FAR)


def optimize(
    space: Space, start: Tensor, loss: Callable[[Tensor, Tensor], Tensor], steps: int, rate: float
) -> Iterator[Edit]:
    """Adam from `start`; `loss` takes decoded images and vectors. Gradients are of the vectors alone."""
    vectors = start.detach().clone().requires_grad_()
    adam = torch.optim.Adam([vectors], rate)
    best: Edit | None = None
    for step in range(steps + 1):
        with torch.enable_grad():
            decoded, ids = space.decode(vectors)
            value = loss(decoded, vectors)
            (vectors.grad,) = torch.autograd.grad(value, [vectors])
        if best is None or value.item() < best.loss:
            picture = to_uint8(decoded[0].detach()).cpu()
            best = Edit(step, steps, value.item(), picture, None if ids is None else ids[0].cpu(), picture)
        adam.step()
        yield best._replace(step=step)


def space_of(tokenizer: Tokenizer, images: Tensor, num_tokens: int | None) -> Space:
    count = num_tokens or tokenizer.config.num_latent_tokens
    check_counts([tokenizer.config, EvalConfig(token_counts=(count,))])
    linear = isinstance(tokenizer.encoder, LinearTokenizer)
    return LinearSpace(tokenizer, count) if linear else TokenSpace(tokenizer, count, images)


def as_batch(tokenizer: Tokenizer, image: Tensor) -> Tensor:
    """uint8 [3, S, S] -> float [1, 3, S, S]. Raises `ConfigError` for another image."""
    S = tokenizer.config.image_size
    if image.dtype != torch.uint8 or image.shape != (3, S, S):
        raise ConfigError(
            f"an image is {described(image)}, not uint8 [3, {S}, {S}]: type open_photo(path, {S})"
        )
    return to_float(image[None].to(tokenizer.device))


def checked(tokenizer: Tokenizer, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """The image as a batch, and the hole on its device. Raises `ConfigError`."""
    pixels = as_batch(tokenizer, image)
    S = tokenizer.config.image_size
    if hole.dtype != torch.bool or hole.shape != (S, S) or hole.all() or not hole.any():
        raise ConfigError(
            f"a hole is bool [{S}, {S}], True at some pixels and not at all: type "
            f"hole = torch.zeros({S}, {S}, dtype=torch.bool), and hole[16:48, 16:48] = True"
        )
    return pixels, hole.to(pixels.device)
