"""Quantizers by name: continuous tokens in, tokens of a few possible values out. One contract for all:

    codes, ids, loss, terms = quantizer(z)  # z [B, K, in_dim] -> codes [B, K, dim], ids [B, K] int64
    codes = quantizer.ids_to_codes(ids)       # ids [B, K] -> the same codes, bit for bit

`loss` is what the quantizer itself wants minimized, `terms` what is in it, to be logged. Training gives the
weight that the entropies have in it: `quantizer(z, entropy_weight)`. Everything inside is float32. The mean
over a batch is over all processes' parts of it; what a step changes is in parameters and buffers. Two are
continuous: softvq's ids decode to each token's strongest code only, and kl has none.

| name   | tokens                            | bits a token        | gradient                      |
|--------|-----------------------------------|---------------------|-------------------------------|
| fsq    | a few rounded numbers             | log2 of Π levels    | straight-through              |
| lfq    | signs, on the unit sphere         | log2 codebook_size  | straight-through              |
| vq     | nearest code on the unit sphere   | log2 codebook_size  | straight-through or rotation  |
| vq_ema | the same, codes are running means | log2 codebook_size  | straight-through or rotation  |
| simvq  | nearest of fixed codes × a matrix | log2 codebook_size  | straight-through or rotation  |
| softvq | a mix of codes                    | 32 codebook_dim     | its own                       |
| kl     | a draw from a Gaussian            | 32 codebook_dim     | its own                       |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ as _FSQ
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from tok1d.config.schema import TokenizerConfig
from tok1d.distributed import broadcast_from_main, gather_batch, local_part, mean_over_processes, world_size

NO_IDS = (
    "quantizer=kl has continuous tokens and no ids: take codes = tokenizer.encode_codes(images).codes and "
    "tokenizer.decode(codes), or train with quantizer=fsq for ids"
)


class Quantized(NamedTuple):
    codes: Tensor  # [B, K, dim] float32
    ids: Tensor | None  # [B, K] int64, 0 … codebook_size - 1; None for kl
    loss: Tensor  # scalar
    terms: dict[str, Tensor]  # what is in `loss`, each a detached scalar without its weight, to be logged


class Quantizer(nn.Module):
    """z [B, K, in_dim] -> `Quantized`; float32 inside, whatever autocast is on around it.

    `in_dim` is `dim` but for kl, `codebook_size` is 0 for kl. `entropy_weight`, which training moves along a
    schedule, is used by vq, lfq and softvq; at 0 there are no entropies.
    """

    def __init__(self, dim: int, codebook_size: int, in_dim: int | None = None):
        super().__init__()
        self.dim, self.in_dim, self.codebook_size = dim, in_dim or dim, codebook_size

    def forward(self, z: Tensor, entropy_weight: float = 0.0) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            return self.quantize(z.float(), entropy_weight)

    def ids_to_codes(self, ids: Tensor) -> Tensor:
        """ids [B, K] int64 -> codes [B, K, dim] float32."""
        with torch.autocast(ids.device.type, enabled=False):
            return self.look_up(ids)

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        raise NotImplementedError

    def look_up(self, ids: Tensor) -> Tensor:
        raise NotImplementedError


def straight_through(z: Tensor, codes: Tensor, rotate: bool = False) -> Tensor:
    """Exactly `codes`, with gradients that go to `z`: [B, K, dim] each.

    They arrive unchanged (arXiv:1308.3432), or with `rotate` turned and scaled as `z` must be to become its
    code (arXiv:2410.06424). The usual z + (codes - z) would round, and ids would not decode to the same bits.
    """
    path = rotate_to(z, codes.detach()) if rotate else z
    return codes.detach() + (path - path.detach())


def entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy (nats) of a token's choice of code, the mean over tokens, and that of the whole batch's choice.

    logits [N, V] of softmax; the batch is that of all processes. MAGVIT-v2 (arXiv:2310.05737) minimizes their
    difference: tokens should be sure of their code, and the batch should use all of them.
    """
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    return -(p * log_p).sum(-1).mean(), entropy(mean_over_processes(p.mean(0)))


def entropy(p: Tensor) -> Tensor:
    """Entropy (nats) of one distribution, of any shape."""
    return -(p * p.clamp_min(1e-8).log()).sum()


def entropy_terms(sample: Tensor, batch: Tensor) -> dict[str, Tensor]:
    return {"entropy_sample": sample.detach(), "entropy_batch": batch.detach()}


def unit(x: Tensor) -> Tensor:
    """Every vector [..., dim] at length 1."""
    return F.normalize(x, dim=-1)


class FSQ(Quantizer):
    """Finite scalar quantization (arXiv:2309.15505): rounding each of a few bounded numbers.

    Nothing to learn and nothing to collapse; loss = 0. `levels` are the values per dimension; their product
    is the codebook size.
    """

    def __init__(self, levels: tuple[int, ...]):
        fsq = _FSQ(levels=list(levels))
        super().__init__(len(levels), fsq.codebook_size)
        self.fsq = fsq

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        rounded, ids = self.fsq(z)
        ids = ids.long()
        return Quantized(straight_through(rounded, self.look_up(ids)), ids, z.new_zeros(()), {})

    def look_up(self, ids: Tensor) -> Tensor:
        return self.fsq.indices_to_codes(ids)

    def codes_to_ids(self, codes: Tensor) -> Tensor:
        """Codes as `ids_to_codes` gives them, [B, K, dim] -> ids [B, K]."""
        return self.fsq.codes_to_indices(codes.float()).round().long()


class LFQ(Quantizer):
    """Lookup-free quantization (MAGVIT-v2, arXiv:2310.05737): the sign of each number is one bit.

    Tokens and codes are on the unit sphere, as in its successor BSQ (arXiv:2406.07548), and the temperature
    is ten times theirs. With codes of -1 and 1 as first published and 0.01, the commitment loss is so stiff
    and the entropies so flat that tokens stop telling images apart (20 codes in 256 tokens of toy roads after
    200 steps at entropy_weight 0.01; here 107).
    loss = commitment ‖z - sg[e]‖² + entropy_weight (entropy_sample - entropy_batch), where a token's choice
    of a code is softmax(2 z·e / temperature): see `entropies`. `codebook_size` is a power of two.
    """

    def __init__(self, codebook_size: int, commitment_weight: float = 0.25, temperature: float = 0.1):
        bits = codebook_size.bit_length() - 1
        super().__init__(bits, codebook_size)
        self.commitment_weight, self.temperature = commitment_weight, temperature
        self.register_buffer("powers", 2 ** torch.arange(bits), persistent=False)

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


DEAD_BELOW = 0.1  # of the fair share 1 / codebook_size; a code that is used less starts anew


class Codebook(Quantizer):
    """What vq, vq_ema and simvq share. `rotation_trick` is about gradients: see `straight_through`."""

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


class VQEMA(Codebook):
    """`VQ` whose codebook is no parameter: each code is the running mean of the inputs that chose it
    (arXiv:1711.00937, appendix A.1), and loss = commitment ‖z - sg[e]‖².

    A code that has nearly no share of the tokens is replaced by a random input of the batch. As every share
    starts at 0, the first batches also are the codebook's initialization. A training step moves the codebook
    after it has chosen, so ids decode to the same codes only in eval mode.
    """

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


class SimVQ(Codebook):
    """Every code at once moves (arXiv:2411.02038): the codebook is fixed Gaussian vectors times one learned
    matrix, so a step that uses few codes moves all, and none dies.

    Nearest by Euclidean distance; loss = ‖sg[z] - e‖² + commitment ‖z - sg[e]‖².
    """

    def __init__(
        self, codebook_size: int, dim: int, commitment_weight: float = 0.25, rotation_trick: bool = False
    ):
        super().__init__(codebook_size, dim, commitment_weight, rotation_trick)
        self.register_buffer("fixed", torch.randn(codebook_size, dim) * dim**-0.5)
        self.linear = nn.Linear(dim, dim, bias=False)

    def codebook_vectors(self) -> Tensor:
        return self.linear(self.fixed)

    def quantize(self, z: Tensor, entropy_weight: float) -> Quantized:
        table = self.codebook_vectors()
        ids = (2 * z @ table.T - table.square().sum(-1)).argmax(-1)  # ‖z - e‖² without ‖z‖²
        result, to_inputs = self.chosen(z, ids, F.embedding(ids, table))
        return result._replace(loss=result.loss + to_inputs)


class KL(Quantizer):
    """A variational autoencoder's bottleneck (arXiv:1312.6114): z holds a mean and a log-variance for each
    number, codes are drawn from that Gaussian in training and its mean in eval mode.

    loss = weight · KL divergence from a unit Gaussian, in nats a token (the mean over tokens). No ids.
    """

    def __init__(self, dim: int, weight: float = 1e-4):
        super().__init__(dim, codebook_size=0, in_dim=2 * dim)
        self.weight = weight

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


__all__ = [
    "FSQ", "KL", "LFQ", "NO_IDS", "QUANTIZERS", "VQ", "VQEMA", "Quantized", "Quantizer", "SimVQ", "SoftVQ",
    "build_quantizer",
]  # fmt: skip

QUANTIZERS: dict[str, Callable[[TokenizerConfig], Quantizer]] = {
    "fsq": lambda c: FSQ(c.fsq_levels),
    "vq": lambda c: VQ(
        c.codebook_size, c.codebook_dim, c.commitment_weight, c.rotation_trick, c.entropy_temperature
    ),
    "vq_ema": lambda c: VQEMA(
        c.codebook_size, c.codebook_dim, c.commitment_weight, c.rotation_trick, c.codebook_decay
    ),
    "lfq": lambda c: LFQ(c.codebook_size, c.commitment_weight),
    "simvq": lambda c: SimVQ(c.codebook_size, c.codebook_dim, c.commitment_weight, c.rotation_trick),
    "softvq": lambda c: SoftVQ(c.codebook_size, c.codebook_dim, c.softvq_temperature),
    "kl": lambda c: KL(c.codebook_dim, c.kl_weight),
}


def build_quantizer(config: TokenizerConfig) -> Quantizer:
    return QUANTIZERS[config.quantizer](config)
