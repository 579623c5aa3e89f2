"""How far a reconstruction's pixels are from the image's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tok1d.config.schema import LossConfig

CHARBONNIER_EPS = 1e-3  # about where it turns from squared to absolute, in 0 … 1 (as in arXiv:1710.01992)


def pixel_loss(reconstruction: Tensor, images: Tensor, config: LossConfig) -> Tensor:
    """Weighted sum of the `pixel_terms` of two [B, 3, H, W] in 0 … 1; scalar."""
    loss = reconstruction.new_zeros((), dtype=images.dtype)
    for name, value in pixel_terms(reconstruction, images, config).items():
        loss = loss + getattr(config, f"{name}_weight") * value
    return loss


def pixel_terms(reconstruction: Tensor, images: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Each mean error with a weight above 0, unweighted, by name: l1, l2 and charbonnier.

    Charbonnier, sqrt(d² + eps²) - eps, is the absolute error with a smooth bottom (Charbonnier et al. 1994).
    """
    measures = {"l1": F.l1_loss, "l2": F.mse_loss, "charbonnier": charbonnier}
    return {
        name: measure(reconstruction, images)
        for name, measure in measures.items()
        if getattr(config, f"{name}_weight") > 0
    }


def charbonnier(reconstruction: Tensor, images: Tensor) -> Tensor:
    return ((reconstruction - images).square() + CHARBONNIER_EPS**2).sqrt().mean() - CHARBONNIER_EPS


def ramp(start: float, end: float, step: int, steps: int) -> float:
    """From `start` to `end` in a straight line over `steps` steps, then `end`."""
    return start + (end - start) * min(1.0, step / steps)
