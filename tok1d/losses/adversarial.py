"""The adversarial game's rules: hinge losses, their adaptive weight, LeCam's regularisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.distributed import mean_over_processes


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss (Lim & Ye 2017, arXiv:1705.02894): real logits are to be over 1, fake ones under -1."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    return -fake.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """‖∇ reconstruction‖ / ‖∇ adversarial‖ at the decoder's last layer (VQGAN, arXiv:2012.09841), at most
    1e4.

    Both are this process's gradients; the ratio is that of the whole batch.
    """
    reconstruction, adversarial = mean_over_processes(torch.stack([reconstruction, adversarial]).float())
    return (reconstruction.norm() / (adversarial.norm() + 1e-4)).clamp(0, 1e4)


class LeCam(nn.Module):
    """Keeps the logits near their opposites' running means, so that few images do not make the discriminator
    sure of itself (Tseng et al. 2021, arXiv:2104.03310).
    """

    def __init__(self, decay: float = 0.999):
        super().__init__()
        self.decay = decay
        self.register_buffer("means", torch.zeros(2))  # of real and of fake logits

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Logits of any shape -> a scalar."""
        with torch.no_grad():
            now = mean_over_processes(torch.stack([real.mean(), fake.mean()]).float())
            self.means.lerp_(now, 1 - self.decay)
        return F.relu(real - self.means[1]).square().mean() + F.relu(self.means[0] - fake).square().mean()
