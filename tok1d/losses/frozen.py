"""Networks that only measure: perceptual losses, feature discriminators, alignment targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

LEAST_SIDE = 32  # px; of a smaller image nothing would be left after the strides of a convolutional network


class Frozen(nn.Module):
    """A network that never learns: always in eval mode, no gradients of its own, in no checkpoint.

    It moves to a device with its parent, but is none of its submodules: the parent's `.train()`,
    `.parameters()` and `.state_dict()` do not see it. Gradients flow through it to its input.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self._hidden = (net.eval().requires_grad_(False),)

    @property
    def net(self) -> nn.Module:
        return self._hidden[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.net(*args, **kwargs)

    def _apply(self, function: Callable, recurse: bool = True) -> Frozen:
        self.net._apply(function, recurse)
        return super()._apply(function, recurse)


def enlarged(images: Tensor) -> Tensor:
    """Images [B, 3, H, W], bilinearly enlarged if a side is shorter than `LEAST_SIDE`."""
    scale = LEAST_SIDE / min(images.shape[-2:])
    return images if scale <= 1 else F.interpolate(images, scale_factor=scale, mode="bilinear")
