"""A second kind of model for the training loop: a network that guesses the next symbol of a Markov chain.

python bigram.py OUTPUTS DIE_AT NAME=VALUE …    trains one, and is killed once DIE_AT is logged (0: never)
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tok1d.config.parse import parse
from tok1d.config.schema import LoopConfig, RunConfig
from tok1d.runs import Run
from tok1d.training.task import Loss, Task
from tok1d.training.train import fit

SYMBOLS, LENGTH, WIDTH = 8, 16, 32
LOOP = dict(
    steps=20, batch_size=8, grad_accum_steps=2, log_every=1, checkpoint_every=5, warmup_steps=2, lr=0.01,
    muon_lr=0.05, ema_decay=0.5,
)  # fmt: skip


class Chains:
    """64 sequences [LENGTH] of a chain in which each symbol has a favourite successor."""

    fingerprint = "chains of 8 symbols"

    def __init__(self):
        rng = np.random.default_rng(0)
        after = (
            0.2 * rng.dirichlet(np.ones(SYMBOLS), SYMBOLS) + 0.8 * np.eye(SYMBOLS)[rng.permutation(SYMBOLS)]
        )
        self.ids = np.zeros((64, LENGTH), np.int64)
        for row in self.ids:
            row[0] = rng.integers(SYMBOLS)
            for i in range(1, LENGTH):
                row[i] = rng.choice(SYMBOLS, p=after[row[i - 1]])

    def train_batch(
        self, step: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, pin: bool = False
    ) -> Tensor:
        rows = np.random.default_rng((seed, step)).integers(len(self.ids), size=batch_size)
        return torch.from_numpy(self.ids[rows[rank::world]])


class Residual(nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class Bigram(nn.Module):
    """ids [B, L] -> logits [B, L, SYMBOLS] of each one's successor."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, WIDTH)
        self.blocks = nn.ModuleList(Residual(dropout) for _ in range(2))
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class BigramTask(Task[Bigram]):
    def __init__(self, config: LoopConfig, dropout: float = 0.0):
        super().__init__(config)
        self.dropout = dropout

    def build(self, run: Run | None = None) -> None:
        self.model = Bigram(self.dropout)

    def save(self, weights: dict[str, Tensor], folder: Path) -> None:
        folder.mkdir()
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"symbols": SYMBOLS}))

    def load(self, run: Run) -> Bigram:
        model = Bigram()
        model.load_state_dict(load_file(run / "model" / "model.safetensors"))
        return model.eval()

    def loss(self, batch: Tensor, step: int) -> Loss:
        ids = batch[:, : self._length(step)]
        logits = self.network(ids[:, :-1])  # [B, L - 1, SYMBOLS]
        value = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        return Loss(value, {"loss": value.detach()}, logits)

    def _length(self, step: int) -> int:
        return int(np.random.default_rng((self.config.seed, step)).integers(LENGTH // 2, LENGTH + 1))

    def settings(self, step: int) -> dict[str, float]:
        return {"length": self._length(step)}

    def statistics(self, output: Tensor, batch: Tensor) -> dict[str, Tensor]:
        best = output.argmax(-1)
        right = (best == batch[:, 1 : 1 + best.shape[1]]).float().mean()
        return {"accuracy": right, "guesses": torch.bincount(best.flatten(), minlength=SYMBOLS).float()}

    def summary(self, means: dict[str, Tensor], parts: int) -> dict[str, float]:
        return {"guessed": (means["guesses"] > 0).sum().item(), "of": (parts * means["guesses"]).sum().item()}

    def blocks(self, model: Bigram) -> list[nn.Module]:
        return list(model.blocks)


def open_run(outputs: Path, **params) -> tuple[Run, LoopConfig]:
    """A run folder, and what the loop is to do."""
    run_config, loop_config = parse(LOOP | params | {"outputs": str(outputs)}, RunConfig, LoopConfig)
    return Run.open(run_config, loop_config), loop_config


def train_bigram(
    outputs: Path, dropout: float = 0.0, on_log=lambda record: None, **params
) -> tuple[Run, nn.Module]:
    run, config = open_run(outputs, **params)
    return run, fit(run, BigramTask(config, dropout), Chains(), on_log)


if __name__ == "__main__":

    def die(record: dict) -> None:
        if record["step"] == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    given = dict(text.split("=") for text in sys.argv[3:])
    train_bigram(Path(sys.argv[1]), float(given.pop("dropout", 0)), die, **given)
