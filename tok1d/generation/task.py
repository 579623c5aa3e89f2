"""What the training loop needs of a prior."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tok1d.config.schema import LoopConfig
from tok1d.generation.prior import Prior, PriorShape
from tok1d.runs import Run
from tok1d.training.task import Loss, Task


class PriorTask(Task[Prior]):
    """A `Prior` that learns the likelihood of ids: cross-entropy in nats a token, of a masked prior of each
    masked token. Sequences lose all their labels with probability `drop`, and each single one likewise, so
    that one can ask for some of them.
    """

    tables = ("embed.", "positions", "conditions", "earlier", "mask", "head.")

    def __init__(self, shape: PriorShape, config: LoopConfig, drop: float = 0.1):
        super().__init__(config)
        self.shape, self.drop = shape, drop

    def build(self, run: Run | None = None) -> None:
        self.model = Prior.build(self.shape)

    def save(self, weights: dict[str, Tensor], folder: Path) -> None:
        prior = Prior.build(self.shape)
        prior.load_state_dict(weights)
        prior.save_pretrained(folder)

    def load(self, run: Run) -> Prior:
        return Prior.from_pretrained(run / "model")

    def loss(self, batch: Tensor, step: int) -> Loss:
        """batch int64 [b, A + K], of `TokenDataset`."""
        attributes = len(self.shape.attributes)
        asked = self.dropped(batch[:, :attributes])
        log_p = self.network(batch[:, attributes:], asked)  # [b, K], 0 where a token was known
        value = -log_p.sum() / (log_p != 0).sum().clamp_min(1)
        return Loss(value, {"loss": value.detach()}, log_p)

    def dropped(self, asked: Tensor) -> Tensor:
        """`asked` [b, A] with some conditions replaced by any."""
        if not asked.shape[1] or not self.drop:
            return asked
        whole = torch.rand(len(asked), 1, device=asked.device) < self.drop
        each = torch.rand(asked.shape, device=asked.device) < self.drop
        anything = asked.new_tensor([len(values) for values in self.shape.attributes.values()])
        return torch.where(whole | each if asked.shape[1] > 1 else whole, anything, asked)

    def blocks(self, model: Prior) -> list[nn.Module]:
        return list(model.transformer.layers)
