"""Losses of pixels against pixels, and the straight line that weights follow."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tok1d.config import LossConfig

CHARBONNIER = 1e-3  # errors under this are squared, as 0 … 1 goes


def pixel_terms(reconstruction: Tensor, images: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Mean errors of two [B, 3, H, W] in 0 … 1 whose weight is not 0: `l1`, `l2`, `charbonnier`; scalars.

    Charbonnier's is sqrt(error² + 0.001²) (Lai et al. 2017, arXiv:1704.03915).
    """
    terms = {}
    if config.l1_weight:
        terms["l1"] = F.l1_loss(reconstruction, images)
    if config.l2_weight:
        terms["l2"] = F.mse_loss(reconstruction, images)
    if config.charbonnier_weight:
        terms["charbonnier"] = ((reconstruction - images).square() + CHARBONNIER**2).sqrt().mean()
    return terms


def pixel_loss(reconstruction: Tensor, images: Tensor, config: LossConfig) -> Tensor:
    """The weighted sum of `pixel_terms`; scalar."""
    terms = pixel_terms(reconstruction, images, config)
    return sum(
        (getattr(config, f"{name}_weight") * term for name, term in terms.items()),
        reconstruction.new_zeros(()),
    )


def ramp(start: float, end: float, step: int, steps: int) -> float:
    """From `start` to `end` in a straight line over `steps` steps, then `end`."""
    return start + (end - start) * min(1.0, step / steps)
