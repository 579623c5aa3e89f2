"""Which optimizer moves which weight, and how fast.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum whose matrix updates are
orthogonalized.

`torch.optim.Muon` does the same in bfloat16, which a CPU without bfloat16 units emulates: one step over the
matrices of the `nano` tokenizer takes it 870 ms against 37 ms here. So this one works in float32 on CPUs, and
matrices of one shape go through together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tok1d.config.schema import TrainConfig
from tok1d.models.tokenizer import Tokenizer

QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0: five iterations bring every singular value to about 1


class Muon(Optimizer):
    """For weights that map vectors to vectors, [out, in, ...]; give tables, biases and norms to AdamW.

    A step moves a matrix [out, in] (a convolution's kernel is flattened to one) by `lr · sqrt(max(1, out /
    in))` in spectral norm, after decoupled weight decay.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                updates = [self._momentum(p, group["momentum"]).flatten(1) for p in params]
                updates = orthogonalise(torch.stack(updates)).to(params[0].dtype)  # [n, out, in]
                scale = max(1, shape[0] / updates.shape[2]) ** 0.5
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(updates.view(-1, *shape)), alpha=-group["lr"] * scale)

    def _momentum(self, p: Tensor, momentum: float) -> Tensor:
        """The gradient with Nesterov momentum."""
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """[n, rows, cols] -> the nearest semi-orthogonal matrices, roughly (singular values 0.7 … 1.2), by
    Newton-Schulz.
    """
    a, b, c = QUINTIC
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def build_optimizers(
    model: Tokenizer, config: TrainConfig, alignment: nn.Module | None = None
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for what maps vectors to vectors and AdamW for the rest.

    `alignment` is a loss whose head learns with the model.

    Patch embedding and pixel head are such maps too: with AdamW on them, as is usual for a language model's
    embedding and head, 32 tokens reach 20.3 dB where they reach 23.4 dB with Muon (64 px dashcam frames, 100
    s on two cores).
    """
    betas = (config.beta1, config.beta2)
    matrices, rest = (
        groups(model, config.encoder_lr_decay, True, alignment),
        groups(model, config.encoder_lr_decay, False, alignment),
    )
    muon = config.optimizer == "muon"
    for group in matrices:
        group["lr"] = group.pop("factor") * (config.muon_lr if muon else config.lr)
    for group in rest:
        group |= {"lr": group.pop("factor") * config.lr, "weight_decay": 0.0}
    if muon:
        return [
            Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay),
            torch.optim.AdamW(rest, lr=config.lr, betas=betas, weight_decay=0.0, fused=True),
        ]
    groups_of_all = [*matrices, *rest]
    return [
        torch.optim.AdamW(
            groups_of_all, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True
        )
    ]


def discriminator_optimizer(discriminator: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW without weight decay, as a rule at the tokenizer's own learning rate."""
    lr, betas = config.discriminator_lr or config.lr, (config.beta1, config.beta2)
    return torch.optim.AdamW(discriminator.parameters(), lr=lr, betas=betas, weight_decay=0.0, fused=True)


def groups(model: Tokenizer, decay: float, maps: bool, alignment: nn.Module | None = None) -> list[dict]:
    """Trainable parameters (those that are maps, or the others) by learning-rate factor, largest first.

    Layer-wise decay, as BEiT (arXiv:2106.08254) fine-tunes: the last block of the encoder learns `decay`
    times as fast as everything new, the block below it `decay²` times, and the embeddings slowest. Blocks are
    in groups of their own, because an optimizer cannot mix whole tensors with those in pieces.
    """
    top = len(model.encoder.vit.blocks) + 1
    by_factor: dict[tuple[float, bool], list] = {(1.0, False): []}
    for name, p in _named(model, alignment):
        if p.requires_grad and is_map(name, p) == maps:
            layer = (
                model.encoder.layer_of(name.removeprefix("encoder.")) if name.startswith("encoder.") else top
            )
            by_factor.setdefault((decay ** (top - layer), ".blocks." in name), []).append(p)
    ordered = sorted(by_factor, key=lambda key: (-key[0], key[1]))
    return [{"params": by_factor[key], "factor": key[0]} for key in ordered]


def _named(model: Tokenizer, alignment: nn.Module | None) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    if alignment is not None:
        yield from alignment.named_parameters(prefix="alignment")


def is_map(name: str, p: Tensor) -> bool:
    """A weight that maps vectors to vectors; not a vector, nor a table of them (positions, latents,
    codebook).
    """
    tables = (
        "latents",
        "mask_tokens",
        "token_positions",
        "pos_embed",
        "cls_token",
        "reg_token",
        "codebook",
        "blend",
    )
    return p.ndim >= 2 and not any(table in name for table in tables)


def set_learning_rate(optimizers: list, step: int, config: TrainConfig, factor: float = 1.0) -> None:
    """Linear warm-up, then a cosine to 0 at the last step, all times `factor`."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    share = max(0, step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak_lr", group["lr"])
            group["lr"] = group["peak_lr"] * factor * warmup * 0.5 * (1 + math.cos(math.pi * share))
