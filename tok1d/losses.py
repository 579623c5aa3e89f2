"""What training minimises."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tok1d.config import TrainConfig


def pixel_loss(reconstruction: Tensor, images: Tensor, config: TrainConfig) -> Tensor:
    """Weighted mean absolute and mean squared error of two [B, 3, H, W] in 0 … 1; scalar."""
    loss = reconstruction.new_zeros(())
    if config.l1_weight:
        loss = loss + config.l1_weight * F.l1_loss(reconstruction, images)
    if config.l2_weight:
        loss = loss + config.l2_weight * F.mse_loss(reconstruction, images)
    return loss


def ramp(start: float, end: float, step: int, steps: int) -> float:
    """From `start` to `end` in a straight line over `steps` steps, then `end`."""
    return start + (end - start) * min(1.0, step / steps)
