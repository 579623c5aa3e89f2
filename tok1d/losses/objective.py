"""What the tokenizer minimizes, and the discriminator that it plays against.

The losses that look at pixels see a detached copy of the reconstruction, and hand on their gradient with
respect to it. So each loss network runs backwards once although VQGAN's adaptive weight compares two of
those gradients; its memory is free again before the tokenizer's own backward pass; and no gradient of the
generator's can reach the discriminator's weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.config.schema import LossConfig, TrainConfig
from tok1d.losses.adversarial import (
    LeCam,
    adaptive_weight,
    build_discriminator,
    hinge_discriminator,
    hinge_generator,
)
from tok1d.losses.alignment import build_alignment
from tok1d.losses.perceptual import build_perceptual
from tok1d.models.tokenizer import Reconstruction, Tokenizer

CHARBONNIER_EPS = 1e-3  # about where it turns from squared to absolute, in 0 … 1 (as in arXiv:1710.01992)


Measure = Callable[[Tensor, Tensor], Tensor]  # reconstruction, images [B, 3, H, W] -> scalar


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
    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "l1": F.l1_loss,
        "l2": F.mse_loss,
        "charbonnier": charbonnier,
    }
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


Terms = dict[str, Tensor]  # detached 0-d tensors, by the name they are logged under


class Objective(nn.Module):
    def __init__(self, tokenizer: Tokenizer, config: TrainConfig):
        super().__init__()
        self.config = config
        self.perceptual = build_perceptual(config) if config.perceptual_weight else None
        self.discriminator = build_discriminator(config) if config.adversarial_weight else None
        self.alignment = build_alignment(config, tokenizer) if config.align_weight else None
        self.lecam = LeCam() if config.adversarial_weight and config.lecam_weight else None

    @property
    def provenance(self) -> dict[str, dict[str, str]]:
        """Which pretrained network stands behind which loss: name, source and sha256 of each."""
        found = {name: getattr(net, "provenance", None) for name, net in self.named_children()}
        return {name: provenance for name, provenance in found.items() if provenance is not None}

    def playing(self, step: int) -> bool:
        """Whether there is a discriminator at this step."""
        return self.discriminator is not None and step >= self.config.discriminator_start

    def forward(
        self, output: Reconstruction, images: Tensor, step: int, last_layer: Tensor
    ) -> tuple[Tensor, Terms]:
        """The tokenizer's loss at `step`: a scalar with the right gradients, and every term's value.

        images [B, 3, H, W] in 0 … 1; `last_layer` is the weight that makes pixels. The value of the whole is
        the term `loss`; that of the scalar itself means nothing.
        """
        pixels = output.images.detach().float().requires_grad_()
        loss, terms = self.reconstruction(pixels, images, output.codes.shape[1])
        (gradient,) = torch.autograd.grad(loss, pixels)
        if self.discriminator is not None and self.playing(step):
            adversarial = hinge_generator(self.discriminator(pixels))
            (against,) = torch.autograd.grad(adversarial, pixels)
            weight = self.adversarial_weight(step) * self.balance(
                output.images, gradient, against, last_layer
            )
            gradient = gradient + weight * against
            loss = loss + weight * adversarial
            terms |= {"adversarial": adversarial, "adaptive_weight": weight}
        rest = self.config.quantizer_weight * output.loss
        if self.alignment is not None:
            terms["align"] = self.alignment(output, images)
            rest = rest + self.config.align_weight * terms["align"]
        terms |= {"loss": loss + rest, "quantizer": output.loss} | output.terms
        surrogate = (output.images * gradient.to(output.images.dtype)).sum() + rest
        return surrogate, {name: term.detach() for name, term in terms.items()}

    def reconstruction(
        self, pixels: Tensor, images: Tensor, num_tokens: int | None = None
    ) -> tuple[Tensor, Terms]:
        """Pixel and perceptual losses of two [B, 3, H, W], the first made of `num_tokens` tokens (None: of
        all): their weighted sum, and each by its name.
        """
        terms = pixel_terms(pixels, images, self.config)
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(pixels, images)
        weights = {name: getattr(self.config, f"{name}_weight") for name in terms}
        if "perceptual" in weights and num_tokens is not None:
            weights["perceptual"] *= min(1.0, num_tokens / self.config.perceptual_from_tokens)
        weighted = [weights[name] * term for name, term in terms.items()]
        return sum(weighted, pixels.sum() * 0), terms

    def adversarial_weight(self, step: int) -> float:
        since = step - self.config.discriminator_start
        steps = self.config.discriminator_ramp
        return self.config.adversarial_weight * (ramp(0, 1, since + 1, steps) if steps else 1.0)

    def balance(self, images: Tensor, gradient: Tensor, against: Tensor, last_layer: Tensor) -> Tensor:
        if not self.config.adaptive_weight:
            return images.new_ones(())
        at_last_layer = [
            torch.autograd.grad(images, last_layer, g.to(images.dtype), retain_graph=True)[0]
            for g in (gradient, against)
        ]
        return adaptive_weight(*at_last_layer)

    def discriminator_loss(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Terms]:
        """What the discriminator minimizes, for reconstructions and images [B, 3, H, W] in 0 … 1."""
        assert self.discriminator is not None
        logits = self.discriminator(torch.cat([real, fake.detach().float()]))
        logits_real, logits_fake = logits.float().chunk(2)
        loss = hinge_discriminator(logits_real, logits_fake)
        terms = {
            "discriminator": loss.detach(),
            "logits_real": logits_real.detach().mean(),
            "logits_fake": logits_fake.detach().mean(),
        }
        if self.lecam is not None:
            loss = loss + self.config.lecam_weight * self.lecam(logits_real, logits_fake)
        return loss, terms
