"""Quantizers without a codebook to learn: each number of a token is rounded for itself (FSQ, LFQ)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from vector_quantize_pytorch import FSQ as _FSQ

from tok1d.config.schema import TokenizerConfig
from tok1d.distributed import mean_over_processes
from tok1d.models.quantizers.base import (
    Quantized,
    Quantizer,
    entropy,
    entropy_terms,
    register,
    straight_through,
    unit,
)


@register("fsq")
class FSQ(Quantizer):
    """Finite scalar quantization (arXiv:2309.15505): rounding each of a few bounded numbers.

    Nothing to learn and nothing to collapse; loss = 0. `levels` are the values per dimension; their product
    is the codebook size.
    """

    def __init__(self, levels: tuple[int, ...]):
        fsq = _FSQ(levels=list(levels))
        super().__init__(len(levels), fsq.codebook_size)
        self.fsq = fsq

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> FSQ:
        return cls(config.fsq_levels)

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        rounded, ids = self.fsq(z)
        ids = ids.long()
        return Quantized(straight_through(rounded, self.look_up(ids)), ids, z.new_zeros(()), {})

    def look_up(self, ids: Tensor) -> Tensor:
        return self.fsq.indices_to_codes(ids)

    def codes_to_ids(self, codes: Tensor) -> Tensor:
        """Codes as `ids_to_codes` gives them, [B, K, dim] -> ids [B, K]."""
        return self.fsq.codes_to_indices(codes.float()).round().long()


@register("lfq")
class LFQ(Quantizer):
    """Lookup-free quantization (MAGVIT-v2, arXiv:2310.05737): the sign of each number is one bit.

    Tokens and codes are on the unit sphere, as in its successor BSQ (arXiv:2406.07548), and the temperature
    is ten times theirs. With codes of -1 and 1 as first published and 0.01, the commitment loss is so stiff
    and the entropies so flat that tokens stop telling images apart (20 codes in 256 tokens of toy roads after
    200 steps at entropy_weight 0.01; here 107).
    loss = commitment ‖z - sg[e]‖² + entropy_weight (entropy_sample - entropy_batch), where a token's choice
    of a code is softmax(2 z·e / temperature): see `entropies`. `codebook_size` is a power of two.
    """

    powers: Tensor  # [bits], of two

    def __init__(self, codebook_size: int, commitment_weight: float = 0.25, temperature: float = 0.1):
        bits = codebook_size.bit_length() - 1
        super().__init__(bits, codebook_size)
        self.commitment_weight, self.temperature = commitment_weight, temperature
        self.register_buffer("powers", 2 ** torch.arange(bits), persistent=False)

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> LFQ:
        return cls(config.codebook_size, config.commitment_weight)

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        z = unit(z)
        ids = ((z > 0) * self.powers).sum(-1)
        codes = self.look_up(ids)
        commitment = F.mse_loss(z, codes)
        loss, terms = self.commitment_weight * commitment, {"commitment": commitment.detach()}
        if entropy_weight > 0:
            sample, batch = self.entropies(z.flatten(0, 1))
            loss = loss + entropy_weight * (sample - batch)
            terms |= entropy_terms(sample, batch)
        return Quantized(straight_through(z, codes), ids, loss, terms)

    def look_up(self, ids: Tensor) -> Tensor:
        signs = ((ids[..., None] & self.powers) != 0).float() * 2 - 1
        return signs * self.dim**-0.5

    def entropies(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`entropies` of z [N, bits], exactly, without a probability for every token and code.

        A token's bits are independent, so its entropy is the sum of theirs; and its distribution is the outer
        product of those over the first and the last half of the bits, so the batch's is one product of two
        matrices [N, about √V].
        """
        logits = 4 * z * self.dim**-0.5 / self.temperature  # 2 z·e / temperature, of a 1 less of a 0
        sample = (F.softplus(logits) - logits * logits.sigmoid()).sum(-1).mean()
        half = self.dim // 2
        first, last = half_codes(logits[:, :half]), half_codes(logits[:, half:])
        return sample, entropy(mean_over_processes(first.T @ last / len(z)))


def half_codes(logits: Tensor) -> Tensor:
    """Logits of n bits, [N, n] -> probabilities of their 2ⁿ values, [N, 2ⁿ]."""
    n = logits.shape[1]
    bits = torch.arange(2**n, device=logits.device)[:, None] >> torch.arange(n, device=logits.device) & 1
    ones = bits.float()  # [2ⁿ, n]
    return (F.logsigmoid(logits) @ ones.T + F.logsigmoid(-logits) @ (1 - ones).T).exp()
