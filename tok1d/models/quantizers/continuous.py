"""Continuous bottlenecks under the quantizers' contract: a Gaussian (KL), and a mix of codes (SoftVQ)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tok1d.config.schema import TokenizerConfig
from tok1d.distributed import broadcast_from_main, local_part, world_size
from tok1d.models.quantizers.base import (
    NO_IDS,
    Quantized,
    Quantizer,
    entropies,
    entropy_terms,
    register,
    unit,
)


@register("kl")
class KL(Quantizer):
    """A variational autoencoder's bottleneck (arXiv:1312.6114): z holds a mean and a log-variance for each
    number, codes are drawn from that Gaussian in training and its mean in eval mode.

    loss = weight · KL divergence from a unit Gaussian, in nats a token (the mean over tokens). No ids.
    """

    def __init__(self, dim: int, weight: float = 1e-4):
        super().__init__(dim, codebook_size=0, in_dim=2 * dim)
        self.weight = weight

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> KL:
        return cls(config.codebook_dim, config.kl_weight)

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        mean, log_variance = z.chunk(2, -1)  # [B, K, dim]
        log_variance = log_variance.clamp(-30, 20)
        nats = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean()
        codes = mean
        if self.training:
            # All processes' noise is drawn at once, so that several processes compute what one does.
            B, K, dim = mean.shape
            noise = local_part(broadcast_from_main(torch.randn(B * world_size(), K, dim, device=z.device)))
            codes = mean + (0.5 * log_variance).exp() * noise
        return Quantized(codes, None, self.weight * nats, {"kl": nats.detach()})

    def look_up(self, ids: Tensor) -> Tensor:
        raise ValueError(NO_IDS)


@register("softvq")
class SoftVQ(Quantizer):
    """SoftVQ-VAE (arXiv:2412.10958): a token becomes a mix of all codes, weighted by
    softmax(cosine / temperature), and no gradient needs a trick.

    Tokens and codebook are on the unit sphere, mixes inside of it. loss = entropy_weight (entropy_sample -
    entropy_batch) as for vq. The tokens are the mixes: ids name the strongest code of each, and `decode_ids`
    gives only that one.
    """

    def __init__(
        self, codebook_size: int, dim: int, temperature: float = 0.07, entropy_temperature: float = 0.01
    ):
        super().__init__(dim, codebook_size)
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))
        self.temperature, self.entropy_temperature = temperature, entropy_temperature

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> SoftVQ:
        return cls(config.codebook_size, config.codebook_dim, config.softvq_temperature)

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        table = unit(self.codebook.float())  # [V, dim]
        # Detached as in the authors' code: the codebook learns from what its mixes become.
        cosine = unit(z) @ table.detach().T  # [B, K, V]
        codes = (cosine / self.temperature).softmax(-1) @ table
        loss, terms = z.new_zeros(()), {}
        if entropy_weight > 0:
            sample, batch = entropies(cosine.flatten(0, 1) / self.entropy_temperature)
            loss, terms = entropy_weight * (sample - batch), entropy_terms(sample, batch)
        return Quantized(codes, cosine.argmax(-1), loss, terms)

    def look_up(self, ids: Tensor) -> Tensor:
        return unit(self.codebook.float())[ids]
