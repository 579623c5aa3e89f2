"""Every quantizer, small: for the tests of one process and of several."""

import torch
from torch import Tensor, nn

from tok1d.config.registry import QUANTIZERS, Quantization
from tok1d.config.schema import TokenizerConfig
from tok1d.distributed import average_gradients
from tok1d.models.quantizers import Quantizer, build_quantizer

ENTROPY_WEIGHT = 0.1
CASES = [*QUANTIZERS, *(f"{name}+rotation" for name, row in QUANTIZERS.items() if row.rotation_trick)]


def row_of(case: str) -> Quantization:
    return QUANTIZERS[case.partition("+")[0]]


DISCRETE = [case for case in CASES if not row_of(case).continuous]


def build(case: str, seed: int = 0) -> Quantizer:
    """In training mode."""
    name, _, rotation = case.partition("+")
    torch.manual_seed(seed)
    config = TokenizerConfig(
        quantizer=name, codebook_size=64, codebook_dim=4, fsq_levels=(8, 5, 5), rotation_trick=bool(rotation)
    )
    return build_quantizer(config)


def inputs(quantizer: Quantizer, seed: int = 0) -> Tensor:
    """z [4, 6, in_dim]."""
    return 0.3 * torch.randn(4, 6, quantizer.in_dim, generator=torch.Generator().manual_seed(seed))


def step(quantizer: nn.Module, number: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """One training step as the loop takes it, on this process's part of the batch; what it came to."""
    torch.manual_seed(100 * number + rank)
    z = inputs(quantizer, number)[rank::world].requires_grad_()
    codes, _, loss, terms = quantizer(z, ENTROPY_WEIGHT)
    target = torch.randn(4, *codes.shape[1:], generator=torch.Generator().manual_seed(number))[rank::world]
    loss = (codes - target).square().mean() + loss
    quantizer.zero_grad()
    loss.backward()
    average_gradients(quantizer.parameters())
    made = {"loss": loss.detach(), "z.grad": z.grad, "codes": codes.detach()} | terms
    with torch.no_grad():
        for name, p in quantizer.named_parameters():
            made[f"{name}.grad"] = p.grad.clone()
            p -= 0.1 * p.grad
    return made
