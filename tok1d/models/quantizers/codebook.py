"""Vector quantizers: a token becomes the nearest of a table of codes (VQ, VQ with running means, SimVQ)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.config.schema import TokenizerConfig
from tok1d.distributed import broadcast_from_main, gather_batch, mean_over_processes
from tok1d.models.quantizers.base import (
    Quantized,
    Quantizer,
    entropies,
    entropy_terms,
    register,
    straight_through,
    unit,
)

DEAD_BELOW = 0.1  # of the fair share 1 / codebook_size; a code that is used less starts anew


class Codebook(Quantizer):
    """What quantizers with a table of codes share: tokens take the nearest one.

    `rotation_trick` is about gradients: see `straight_through`.
    """

    def __init__(self, codebook_size: int, dim: int, commitment_weight: float, rotation_trick: bool):
        super().__init__(dim, codebook_size)
        self.commitment_weight, self.rotation_trick = commitment_weight, rotation_trick

    def codebook_vectors(self) -> Tensor:
        """The codes, [V, dim]."""
        raise NotImplementedError

    def look_up(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.codebook_vectors())

    def chosen(self, z: Tensor, ids: Tensor, codes: Tensor) -> tuple[Quantized, Tensor]:
        """The result, with the commitment loss of inputs to codes, and ‖sg[z] - e‖², that of codes to inputs.

        Both are means over all numbers, z [B, K, dim].
        """
        commitment = F.mse_loss(z, codes.detach())
        through = straight_through(z, codes, self.rotation_trick)
        terms = {"commitment": commitment.detach()}
        return Quantized(through, ids, self.commitment_weight * commitment, terms), F.mse_loss(
            codes, z.detach()
        )


@register("vq")
class VQ(Codebook):
    """The reference vector quantizer: codes and codebook on the unit sphere (as in ViT-VQGAN,
    arXiv:2110.04627).

    loss = ‖sg[z] - e‖² + commitment ‖z - sg[e]‖² + entropy_weight (entropy_sample - entropy_batch), where the
    entropies are of softmax(cosine / temperature): see `entropies`.
    """

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        commitment_weight: float = 0.25,
        rotation_trick: bool = False,
        temperature: float = 0.01,
    ):
        super().__init__(codebook_size, dim, commitment_weight, rotation_trick)
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))
        self.temperature = temperature

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> VQ:
        return cls(
            config.codebook_size,
            config.codebook_dim,
            config.commitment_weight,
            config.rotation_trick,
            config.entropy_temperature,
        )

    def codebook_vectors(self) -> Tensor:
        return unit(self.codebook.float())

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        z, table = unit(z), self.codebook_vectors()
        cosine = z @ table.T  # [B, K, V]
        ids = cosine.argmax(-1)
        result, to_inputs = self.chosen(z, ids, F.embedding(ids, table))
        loss, terms = result.loss + to_inputs, result.terms
        if entropy_weight > 0:
            sample, batch = entropies(cosine.flatten(0, 1) / self.temperature)
            loss = loss + entropy_weight * (sample - batch)
            terms = terms | entropy_terms(sample, batch)
        return result._replace(loss=loss, terms=terms)


@register("vq_ema")
class VQEMA(Codebook):
    """`VQ` whose codebook is no parameter: each code is the running mean of the inputs that chose it
    (arXiv:1711.00937, appendix A.1), and loss = commitment ‖z - sg[e]‖².

    A code that has nearly no share of the tokens is replaced by a random input of the batch. As every share
    starts at 0, the first batches also are the codebook's initialization. A training step moves the codebook
    after it has chosen, so ids decode to the same codes only in eval mode.
    """

    shares: Tensor  # [V], of the tokens that choose a code
    sums: Tensor  # [V, dim], that times their mean

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        commitment_weight: float = 0.25,
        rotation_trick: bool = False,
        decay: float = 0.99,
    ):
        super().__init__(codebook_size, dim, commitment_weight, rotation_trick)
        self.decay = decay
        # The share of tokens that choose a code, and that times their mean: what there is at first weighs
        # next to nothing.
        self.register_buffer("shares", torch.zeros(codebook_size))
        self.register_buffer("sums", 1e-3 / codebook_size * unit(torch.randn(codebook_size, dim)))

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> VQEMA:
        return cls(
            config.codebook_size,
            config.codebook_dim,
            config.commitment_weight,
            config.rotation_trick,
            config.codebook_decay,
        )

    def codebook_vectors(self) -> Tensor:
        return unit(self.sums)

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        z, table = unit(z), self.codebook_vectors()
        ids = (z @ table.T).argmax(-1)
        result, _ = self.chosen(z, ids, F.embedding(ids, table))
        if self.training:
            self.learn(z.detach().flatten(0, 1), gather_batch(z.detach()).flatten(0, 1), ids.flatten())
        return result

    @torch.no_grad()
    def learn(self, z: Tensor, everyone: Tensor, ids: Tensor) -> None:
        """z [N, dim] and ids [N] of this process, and the inputs of all processes."""
        V, M = self.codebook_size, len(everyone)
        # A product of matrices and not index_add_, which adds in any order on a GPU.
        chose = (ids[:, None] == torch.arange(V, device=ids.device)).float()  # [N, V]
        shares = self.shares.lerp(mean_over_processes(chose.mean(0)), 1 - self.decay)  # [V]
        sums = self.sums.lerp(mean_over_processes(chose.T @ z / len(z)), 1 - self.decay)  # [V, dim]

        dead = shares < DEAD_BELOW / V
        number = dead.cumsum(0) - 1  # of a dead code, among the dead
        dead &= number < M  # the others wait for the next batch
        drawn = broadcast_from_main(torch.randperm(M, device=z.device))[number.clamp(0, M - 1)]  # [V]
        fresh = torch.where(dead[:, None], everyone[drawn] / V, sums)
        finite = sums.isfinite().all()  # else the loop skips this step, and so must we
        self.shares.copy_(torch.where(finite, shares.masked_fill(dead, 1 / V), self.shares))
        self.sums.copy_(torch.where(finite, fresh, self.sums))


@register("simvq")
class SimVQ(Codebook):
    """Every code at once moves (arXiv:2411.02038): the codebook is fixed Gaussian vectors times one learned
    matrix, so a step that uses few codes moves all, and none dies.

    Nearest by Euclidean distance; loss = ‖sg[z] - e‖² + commitment ‖z - sg[e]‖².
    """

    fixed: Tensor  # [V, dim]

    def __init__(
        self, codebook_size: int, dim: int, commitment_weight: float = 0.25, rotation_trick: bool = False
    ):
        super().__init__(codebook_size, dim, commitment_weight, rotation_trick)
        self.register_buffer("fixed", torch.randn(codebook_size, dim) * dim**-0.5)
        self.linear = nn.Linear(dim, dim, bias=False)

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> SimVQ:
        return cls(config.codebook_size, config.codebook_dim, config.commitment_weight, config.rotation_trick)

    def codebook_vectors(self) -> Tensor:
        return self.linear(self.fixed)

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        table = self.codebook_vectors()
        ids = (2 * z @ table.T - table.square().sum(-1)).argmax(-1)  # ‖z - e‖² without ‖z‖²
        result, to_inputs = self.chosen(z, ids, F.embedding(ids, table))
        return result._replace(loss=result.loss + to_inputs)
