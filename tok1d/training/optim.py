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
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tok1d.config.schema import LoopConfig

QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0: five iterations bring every singular value to about 1


class Muon(Optimizer):
    """For weights that map vectors to vectors, [out, in, ...]; give tables, biases and norms to AdamW.

    A step moves a matrix [out, in] (a convolution's kernel is flattened to one) by `lr · sqrt(max(1, out /
    in))` in spectral norm, after decoupled weight decay.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it has no use for a closure
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                moved = [self._momentum(p, group["momentum"]).flatten(1) for p in params]
                updates = orthogonalise(torch.stack(moved)).to(params[0].dtype)  # [n, out, in]
                scale = max(1, shape[0] / updates.shape[2]) ** 0.5
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(updates.view(-1, *shape)), alpha=-group["lr"] * scale)

    def _momentum(self, p: Tensor, momentum: float) -> Tensor:
        """The gradient with Nesterov momentum."""
        assert p.grad is not None
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


class ParamGroup(NamedTuple):
    """Trainable parameters with one learning rate."""

    params: list[Tensor]
    factor: float  # of the learning rate
    maps: bool  # whether they map vectors to vectors; the others are vectors, and tables of them


def param_groups(
    named: Iterable[tuple[str, Tensor]],
    blocks: Iterable[nn.Module] = (),
    tables: tuple[str, ...] = (),
    factor: Callable[[str], float] = lambda name: 1.0,
) -> list[ParamGroup]:
    """The trainable ones of these parameters: maps first, then the others, each by falling `factor` of their
    names.

    `tables` are parts of names: see `is_map`. Those in `blocks` are in groups of their own, because an
    optimizer cannot mix whole tensors with those in pieces.
    """
    in_blocks = {id(p) for block in blocks for p in block.parameters()}
    found: dict[tuple[bool, float, bool], list[Tensor]] = {(maps, 1.0, False): [] for maps in (True, False)}
    for name, p in named:
        if p.requires_grad:
            found.setdefault((is_map(name, p, tables), factor(name), id(p) in in_blocks), []).append(p)
    ordered = sorted(found, key=lambda key: (not key[0], -key[1], key[2]))
    return [ParamGroup(found[key], factor=key[1], maps=key[0]) for key in ordered]


def is_map(name: str, p: Tensor, tables: tuple[str, ...]) -> bool:
    """A weight that maps vectors to vectors; not a vector, nor a table of them (positions, latents,
    codebook), which has one of `tables` in its name.
    """
    return p.ndim >= 2 and not any(table in name for table in tables)


def build_optimizers(groups: list[ParamGroup], config: LoopConfig) -> list[Optimizer]:
    """AdamW for everything, or Muon for what maps vectors to vectors and AdamW for the rest.

    Patch embedding and pixel head are such maps too: with AdamW on them, as is usual for a language model's
    embedding and head, 32 tokens reach 20.3 dB where they reach 23.4 dB with Muon (64 px dashcam frames, 100
    s on two cores).
    """
    betas = (config.beta1, config.beta2)
    muon = config.optimizer == "muon"
    matrices = [
        {"params": group.params, "lr": group.factor * (config.muon_lr if muon else config.lr)}
        for group in groups
        if group.maps
    ]
    rest = [
        {"params": group.params, "lr": group.factor * config.lr, "weight_decay": 0.0}
        for group in groups
        if not group.maps
    ]
    if muon:
        return [
            Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay),
            torch.optim.AdamW(rest, lr=config.lr, betas=betas, weight_decay=0.0, fused=True),
        ]
    decay = config.weight_decay
    return [torch.optim.AdamW([*matrices, *rest], lr=config.lr, betas=betas, weight_decay=decay, fused=True)]


def discriminator_optimizer(discriminator: nn.Module, lr: float, config: LoopConfig) -> Optimizer:
    """AdamW without weight decay."""
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(discriminator.parameters(), lr=lr, betas=betas, weight_decay=0.0, fused=True)


def set_learning_rate(optimizers: list, step: int, config: LoopConfig, factor: float = 1.0) -> None:
    """Linear warm-up, then a cosine to 0 at the last step, all times `factor`."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    share = max(0, step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak_lr", group["lr"])
            group["lr"] = group["peak_lr"] * factor * warmup * 0.5 * (1 + math.cos(math.pi * share))
