"""A prior together with the tokenizer that decodes what it draws.

generator = Generator.of_run(Run("outputs/priors/quickstart"))
asked = generator.balanced(8)                      # every class equally often
ids = generator.ids(asked, SampleConfig())         # [8, K]
images = generator.decode(ids[:, :16])             # uint8 [8, 3, S, S]: a prefix is a coarser picture
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.generation import PriorConfig, SampleConfig
from tok1d.config.schema import TokenizerConfig
from tok1d.data.dataset import to_uint8
from tok1d.generation.prior import MaskedPrior, Prior, PriorShape
from tok1d.generation.sampling import generators, sample, sample_masked
from tok1d.generation.token_dataset import TokenDataset, ids_sha256
from tok1d.generation.transformer import levels_of
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run, RunError

TOKENS = 32  # of a sequence, unless told: an elastic tokenizer's first ones
WANTED = "type tokenizer=FOLDER of a trained tokenizer, such as outputs/published/toy-roads-64px"


class Samples(NamedTuple):
    """Samples with these indices of one seed."""

    indices: range
    asked: Tensor  # [B, A]
    ids: Tensor  # [B, K]


class MaskedStep(NamedTuple):
    """What a masked prior has after one of its steps."""

    ids: Tensor  # [B, K]; -1 is a mask
    images: Tensor  # uint8 [B, 3, S, S], with what it drew for the masked tokens in this step


class Generator:
    """Raises `ConfigError` if the tokenizer makes other ids than those that the prior was trained on."""

    def __init__(self, prior: Prior, tokenizer: Tokenizer):
        if prior.shape.ids_sha256 != ids_sha256(tokenizer):
            raise ConfigError(
                f"this prior was trained on the ids of {prior.shape.tokenizer}, and this tokenizer makes "
                f"others: type tokenizer={prior.shape.tokenizer}, or train a prior for it"
            )
        self.prior, self.tokenizer = prior, tokenizer

    @classmethod
    def of_run(cls, run: Run | str | Path) -> Generator:
        """A trained prior, with its tokenizer from where it was. Raises `ConfigError`, `RunError`."""
        run = run if isinstance(run, Run) else Run(run)
        if not run.has_model or run.kind != "prior":
            raise RunError(
                f"{run.path} is no trained prior: train one with 'tok1d run notebooks/generate.ipynb'"
            )
        prior = Prior.from_pretrained(run / "model")
        return cls(prior, load_tokenizer(prior.shape.tokenizer))

    # ---- what to ask for ----

    def asked(self, words: Iterable[str], count: int) -> Tensor:
        """`count` times the same, [count, A], in words: ["timeofday=night", "weather=rainy"]."""
        words = [words] if isinstance(words, str) else words
        pairs = {name: value for name, _, value in (text.partition("=") for text in words)}
        return self._rows([self.prior.indices(pairs)], count)

    def balanced(self, count: int) -> Tensor:
        """`count` conditions, [count, A]: each combination that the training images have equally often."""
        return self._rows(self.prior.shape.combinations or ((),), count)

    def _rows(self, choices: Sequence[Sequence[int]], count: int) -> Tensor:
        """`count` of them in turn, [count, A]."""
        if count < 1:
            raise ConfigError(f"{count} images cannot be asked for: type 1 or more")
        return torch.tensor([choices[i % len(choices)] for i in range(count)], dtype=torch.long)

    def in_words(self, asked: Tensor) -> list[dict[str, str]]:
        """[B, A] -> what each asks for; nothing for what may be anything."""
        attributes = self.prior.shape.attributes.items()
        return [
            {name: values[i] for (name, values), i in zip(attributes, row, strict=True) if i < len(values)}
            for row in asked.tolist()
        ]

    # ---- ids and images ----

    def ids(
        self,
        asked: Tensor,
        config: SampleConfig,
        seed: int = 0,
        first: int = 0,
        num_tokens: int | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """ids [B, num_tokens] for `asked` [B, A], the samples from number `first` on; see `sample`."""
        indices = range(first, first + len(asked))
        return sample(self.prior, asked, config, seed, indices, num_tokens, known)

    def samples(self, asked: Tensor, config: SampleConfig, seed: int = 0) -> Iterator[Samples]:
        """All of `asked` [N, A], `config.sample_batch_size` at a time."""
        for start in range(0, len(asked), config.sample_batch_size):
            some = asked[start : start + config.sample_batch_size]
            indices = range(start, start + len(some))
            yield Samples(indices, some, self.ids(some, config, seed, start))

    @torch.no_grad()
    def masked_steps(self, asked: Tensor, config: SampleConfig, seed: int = 0) -> list[MaskedStep]:
        """A masked prior's steps for `asked` [B, A]; [] of one that goes token by token."""
        if not isinstance(self.prior, MaskedPrior):
            return []
        rngs, asked = generators(seed, range(len(asked))), asked.to(self.prior.device)
        steps = sample_masked(self.prior, asked, config, rngs, asked.new_empty(len(asked), 0))
        return [MaskedStep(step.ids, self.decode(step.guess)) for step in steps]

    @torch.no_grad()
    def decode(self, ids: Tensor) -> Tensor:
        """ids [B, k] -> uint8 [B, 3, S, S]."""
        return to_uint8(self.tokenizer.decode_ids(ids.to(self.tokenizer.device))).cpu()

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Lengths that are worth decoding: of an elastic tokenizer 1, 2, 4 … K, else K alone."""
        K = self.prior.shape.num_tokens
        if not self.tokenizer.config.elastic:
            return (K,)
        return (*(k for k in self.tokenizer.config.token_counts if k < K), K)


def load_tokenizer(where: str) -> Tokenizer:
    """The tokenizer of a run folder, model folder or hub id. Raises `ConfigError`."""
    folder = Path(where)
    inner = folder / "model" if (folder / "model" / "config.json").exists() else folder
    if not inner.is_dir() and where.count("/") != 1:
        raise ConfigError(f"there is no tokenizer {where}: {WANTED}")
    try:
        tokenizer = Tokenizer.from_pretrained(str(inner))
    except OSError as error:
        what = str(error).split("\n")[0][:100]
        raise ConfigError(f"there is no tokenizer {where} ({what}): {WANTED}") from None
    return tokenizer.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def prior_tokens(config: PriorConfig, tokenizer: TokenizerConfig) -> int:
    """How many tokens a prior's sequences have. Raises `ConfigError`."""
    K, asked = tokenizer.num_latent_tokens, config.prior_tokens
    if not asked:
        return min(K, TOKENS) if tokenizer.elastic else K
    if asked > K:
        raise ConfigError(
            f"prior_tokens={asked}, but {config.tokenizer} has {K} tokens: type prior_tokens={K}"
        )
    if asked < K and not tokenizer.elastic:
        raise ConfigError(f"prior_tokens={asked} is no count of {config.tokenizer}: type prior_tokens={K}")
    return asked


def shape_of(config: PriorConfig, tokenizer: Tokenizer, tokens: TokenDataset) -> PriorShape:
    """The prior that `config` asks for, over these tokens."""
    anything = [len(values) for values in tokens.attributes.values()]
    whole = [row for row in tokens.asked.tolist() if all(i < n for i, n in zip(row, anything, strict=True))]
    return PriorShape(
        kind=config.prior,
        num_tokens=tokens.ids.shape[2],
        levels=levels_of(tokenizer.config, config.factorized_head),
        attributes=tokens.attributes,
        combinations=tuple(sorted({tuple(row) for row in whole})),
        width=config.prior_width,
        depth=config.prior_depth,
        heads=max(1, config.prior_width // 64),
        dropout=config.prior_dropout,
        tokenizer=config.tokenizer,
        ids_sha256=ids_sha256(tokenizer),
    )
