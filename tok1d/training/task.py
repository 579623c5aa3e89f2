"""A task: all that the training loop needs of a model. A `Task` of another model trains by the same loop,
checkpoints, processes and doctor; `TokenizerTask` is the one that there is.

    task = TokenizerTask(tokenizer_config, train_config)
    model = fit(run, task, images)         # in tok1d.training.train

A task must have `build`, `loss`, `save` and `load`; everything else is off, or the obvious, until it is
overridden.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from tok1d.config.schema import LoopConfig, TokenizerConfig, TrainConfig
from tok1d.data.dataset import ImageDataset, to_float
from tok1d.losses.objective import Objective, Terms, ramp
from tok1d.losses.statistics import of_batch, statistics
from tok1d.models.linear import LinearTokenizer
from tok1d.models.tokenizer import Reconstruction, Tokenizer
from tok1d.runs import Run
from tok1d.training.initialize import initialize_model
from tok1d.training.optim import ParamGroup, discriminator_optimizer, param_groups

Model = TypeVar("Model", bound=nn.Module)


class Loss(NamedTuple):
    value: Tensor  # scalar, to go backwards from
    terms: Terms  # what is logged of it: detached scalars by name, `loss` among them
    output: Any  # the model's, as `discriminator_loss` and `statistics` take it


class Task(Generic[Model]):
    """What is trained, and how a part of a batch becomes a loss. After `build` it has a model.

    In several processes each has its own parts of a batch; a loss is the mean over the images, or sequences,
    of a part, and the loop takes the mean over parts and processes. Every random choice in `loss` comes from
    torch's generator, which the loop seeds anew for each step and process, or is a function of the seed and
    the step alone: so a killed run ends with the same bits.
    """

    config: LoopConfig
    model: Model  # what learns, is averaged, and is saved in the end
    network: nn.Module  # `model` as wrapped for several processes: what `loss` has to call
    objective: nn.Module  # the losses: what learns or is counted in them is in checkpoints, and not saved
    tables: tuple[str, ...] = ("embed",)  # in names of weights that hold vectors, and map none

    def __init__(self, config: LoopConfig):
        self.config = config
        self.objective = nn.Module()

    # ---- from nothing to a model, and from a model to a folder ----

    def build(self, run: Run | None = None) -> None:
        """Make `model` and `objective`, with the weights that `run` starts from (None: random ones).

        The loop has seeded torch's generator. Raises `ConfigError` if a pretrained file cannot be had.
        """
        raise NotImplementedError

    def save(self, weights: dict[str, Tensor], folder: Path) -> None:
        """Write the averaged model, whose state dict is `weights`, as a folder: `config.json`, and whatever
        `load` reads.
        """
        raise NotImplementedError

    def load(self, run: Run) -> Model:
        """The model of a trained run, in eval mode."""
        raise NotImplementedError

    @property
    def provenance(self) -> dict[str, dict[str, str]]:
        """Which pretrained networks `objective` measures with: name, source and sha256 of each."""
        return {}

    # ---- a step ----

    def prepare(self, part: Tensor) -> Tensor:
        """A part of a batch as `loss` takes it, from one as it was copied to the device."""
        return part

    def loss(self, batch: Tensor, step: int) -> Loss:
        """What `network` loses on one part of a batch at `step`."""
        raise NotImplementedError

    def playing(self, step: int) -> bool:
        """Whether a discriminator has a turn at `step`, after the model's."""
        return False

    def discriminator_loss(self, output: Any, batch: Tensor) -> tuple[Tensor, Terms]:
        """What the discriminator loses on a part of a batch, and what is logged of it."""
        raise NotImplementedError

    # ---- what is logged ----

    def settings(self, step: int) -> dict[str, float]:
        """What `step` is computed with, as far as it differs from step to step."""
        return {}

    def statistics(self, output: Any, batch: Tensor) -> dict[str, Tensor]:
        """More numbers of one part of a batch whose mean over parts is that of the batch; and tensors, of
        whose means `summary` makes numbers.

        To the doctor `psnr`, `perplexity` (of codes), `kl`, `variation` and `token_variation` mean what they
        mean of a tokenizer: see `tok1d.training.symptoms`.
        """
        return {}

    def summary(self, means: dict[str, Tensor], parts: int) -> dict[str, float]:
        """Numbers of a whole batch, from the means of `statistics`' tensors over its `parts`."""
        return {}

    def parts(self) -> dict[str, list[Tensor]]:
        """The parameters of each part of the model whose gradient's norm is logged."""
        parts = ((name, list(child.parameters())) for name, child in self.model.named_children())
        return {name: [*parameters] for name, parameters in parts if parameters}

    def part_of(self, name: str) -> str:
        """The part of the model that a parameter belongs to, in the report of what learns."""
        return name.split(".")[0]

    # ---- optimizers and devices ----

    def blocks(self, model: Model) -> list[nn.Module]:
        """The transformer blocks of `model` (`self.model`, or its averaged copy), where nearly all weights
        are: they are compiled, and cut into pieces, one by one.
        """
        return []

    def convolutional(self) -> list[nn.Module]:
        """Networks that are faster on images whose channels come last in memory."""
        return []

    def param_groups(self) -> list[ParamGroup]:
        """What learns with the model, by learning rate."""
        return param_groups(self.model.named_parameters(), self.blocks(self.model), self.tables)

    def discriminator_optimizer(self) -> Optimizer | None:
        """For a discriminator in `objective`; None without one."""
        return None


# ---- the tokenizer ----


class TokenizerTask(Task[Tokenizer]):
    """A `Tokenizer` that reconstructs images; what it minimizes is in `tok1d.losses.objective`."""

    config: TrainConfig
    objective: Objective

    def __init__(
        self, tokenizer_config: TokenizerConfig, config: TrainConfig, images: ImageDataset | None = None
    ):
        """`images` are those that a linear code is fitted to, with encoder=linear."""
        super().__init__(config)
        self.tokenizer_config, self.images = tokenizer_config, images

    def build(self, run: Run | None = None) -> None:
        self.model = Tokenizer(self.tokenizer_config)
        if run is not None:
            initialize_model(run, self.model, self.config, self.images)
        self.objective = Objective(self.model, self.config)

    def save(self, weights: dict[str, Tensor], folder: Path) -> None:
        tokenizer = Tokenizer(self.tokenizer_config)
        tokenizer.load_state_dict(weights)
        if self.config.model_dtype == "float16":
            tokenizer.half()
        tokenizer.save_pretrained(folder)

    def load(self, run: Run) -> Tokenizer:
        return Tokenizer.from_pretrained(run / "model").eval()

    @property
    def provenance(self) -> dict[str, dict[str, str]]:
        return self.objective.provenance

    def prepare(self, part: Tensor) -> Tensor:
        """uint8 images -> [B, 3, H, W] in 0 … 1."""
        return to_float(part)

    def loss(self, batch: Tensor, step: int) -> Loss:
        config = self.config
        entropy_weight = ramp(
            config.entropy_weight, config.entropy_weight_end, step, config.entropy_decay_steps
        )
        output = self.network(batch, self._num_tokens(step), entropy_weight)
        value, terms = self.objective(output, batch, step, self.model.last_layer)
        return Loss(value, terms, output)

    def playing(self, step: int) -> bool:
        return self.objective.playing(step)

    def discriminator_loss(self, output: Reconstruction, batch: Tensor) -> tuple[Tensor, Terms]:
        return self.objective.discriminator_loss(output.images, batch)

    def settings(self, step: int) -> dict[str, float]:
        return {"num_tokens": self._num_tokens(step)}

    def _num_tokens(self, step: int) -> int:
        return sample_num_tokens(step, self.tokenizer_config, self.config)

    def statistics(self, output: Reconstruction, batch: Tensor) -> dict[str, Tensor]:
        return statistics(output, batch, self.model.quantizer.codebook_size)

    def summary(self, means: dict[str, Tensor], parts: int) -> dict[str, float]:
        return of_batch(means, parts)

    def parts(self) -> dict[str, list[Tensor]]:
        """`quantizer` is all between encoder and decoder, `decoder` with what refines it."""
        parts: dict[str, list[Tensor]] = {"encoder": [], "decoder": [], "quantizer": []}
        of = {"to_codes": "quantizer", "refine": "decoder"}
        for name, p in self.model.named_parameters():
            if p.requires_grad:
                child = name.split(".")[0]
                parts[of.get(child, child)].append(p)
        return {part: parameters for part, parameters in parts.items() if parameters}

    def part_of(self, name: str) -> str:
        """`encoder.vit.blocks.0.…` is part of encoder.vit, `decoder.blocks.0.…` of decoder."""
        parts = name.split(".")
        return ".".join(parts[:2]) if parts[0] == "encoder" else parts[0]

    def blocks(self, model: Tokenizer) -> list[nn.Module]:
        return transformer_blocks(model)

    def convolutional(self) -> list[nn.Module]:
        objective = self.objective
        head = None if isinstance(self.model.encoder, LinearTokenizer) else self.model.decoder.to_pixels
        found = (head, self.model.refine, objective.perceptual, objective.discriminator)
        return [module for module in found if module is not None]

    def param_groups(self) -> list[ParamGroup]:
        return tokenizer_groups(self.model, self.config.encoder_lr_decay, self.objective.alignment)

    def discriminator_optimizer(self) -> Optimizer | None:
        discriminator, config = self.objective.discriminator, self.config
        if discriminator is None:
            return None
        return discriminator_optimizer(discriminator, config.discriminator_lr or config.lr, config)


TABLES = (
    "latents", "mask_tokens", "token_positions", "pos_embed", "cls_token", "reg_token", "codebook", "blend",
    "refine.conv_out", "film", "condition",
)  # fmt: skip


def transformer_blocks(model: Tokenizer) -> list[nn.Module]:
    if isinstance(model.encoder, LinearTokenizer):
        return []
    return [*model.encoder.vit.blocks, *model.decoder.blocks]


def tokenizer_groups(
    model: Tokenizer, encoder_lr_decay: float = 1.0, alignment: nn.Module | None = None
) -> list[ParamGroup]:
    """What learns of a tokenizer, and of the head of an alignment loss, by learning rate.

    Layer-wise decay, as BEiT (arXiv:2106.08254) fine-tunes: the last block of the encoder learns
    `encoder_lr_decay` times as fast as everything new, the block below it the square of that, and the
    embeddings slowest.
    """
    encoder = model.encoder
    top = 0 if isinstance(encoder, LinearTokenizer) else len(encoder.vit.blocks) + 1

    def factor(name: str) -> float:
        new = not name.startswith("encoder.")
        return encoder_lr_decay ** (top - (top if new else encoder.layer_of(name.removeprefix("encoder."))))

    def named() -> Iterator[tuple[str, Tensor]]:
        yield from model.named_parameters()
        if alignment is not None:
            yield from alignment.named_parameters(prefix="alignment")

    return param_groups(named(), transformer_blocks(model), TABLES, factor)


def sample_num_tokens(step: int, tokenizer: TokenizerConfig, config: TrainConfig) -> int:
    """How many tokens step `step` keeps: all K, or once an elastic tokenizer has learned to use them a random
    prefix. Those of a linear encoder are in order from the start; there large counts, in which more can be
    refined, are drawn more often (1 + log2 of the count).

    Counts are drawn from 1, 2, 4 … K (nested dropout, Rippel et al. 2014; powers of two as in FlexTok,
    arXiv:2502.13967). All tokens for the first 40 % of the steps is the best of the schedules tried: toy
    roads at 64 px, 32 tokens, 300 steps of muon, mean PSNR of 1, 8 and 32 tokens 20.55 dB; after 20 % 20.44,
    after 10 % 20.28, from step 0 20.27 dB. `python -m benchmarks.elastic_schedules` draws the loss against
    the step: outputs/published/elastic-schedules.png.
    """
    learned, counts = tokenizer.encoder == "vit", tokenizer.token_counts
    if not tokenizer.elastic or (learned and step < config.elastic_warmup_fraction * config.steps):
        return tokenizer.num_latent_tokens
    random = np.random.default_rng((config.seed, 2, step))
    if learned:
        return int(random.choice(counts))
    often = 1 + np.log2(counts)
    return int(random.choice(counts, p=often / often.sum()))
