"""A prior: how likely a sequence of token ids is, given what is asked for.

    prior = Prior.from_pretrained("outputs/priors/quickstart/model")
    log_p = prior(ids, asked)     # ids [B, K], asked [B, A] -> nats of each token [B, K]

`AutoregressivePrior` goes token by token, as GPT does (LlamaGen, arXiv:2406.06525): each prefix of an elastic
tokenizer's ids is a picture on the way. `MaskedPrior` guesses many tokens at once (MaskGIT,
arXiv:2202.04200). How they are drawn from is in `tok1d.generation.sampling`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Cache

from tok1d.config.fields import Config, ConfigError
from tok1d.generation.transformer import Conditions, Digits, TokenEmbedding, TokenHead, llama
from tok1d.models.tokenizer import check_complete, some
from tok1d.models.weights import read_file


class PriorShape(Config):
    """What a saved prior must know of itself, of its conditions, and of the tokenizer whose ids these are."""

    kind: Literal["autoregressive", "masked"] = "autoregressive"
    num_tokens: int = Field(ge=1)
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field(min_length=1)  # of a token's digits
    attributes: dict[str, tuple[str, ...]] = Field({})  # what can be asked for, and its values
    combinations: tuple[tuple[int, ...], ...] = ()  # of values, by index, that the training images have
    width: int = Field(256, ge=1)
    depth: int = Field(6, ge=1)
    heads: int = Field(4, ge=1)
    dropout: float = 0.1
    tokenizer: str = ""  # where it was
    ids_sha256: str = ""  # of whatever makes its ids

    @property
    def codebook_size(self) -> int:
        return math.prod(self.levels)


class Prior(nn.Module):
    """ids [B, K] int64 in 0 … codebook_size - 1; `asked` [B, A] int64, of each attribute the index of a
    value, or the number of its values for any: `indices` makes it of words.
    """

    kinds: ClassVar[dict[str, type[Prior]]] = {}

    def __init__(self, shape: PriorShape):
        super().__init__()
        self.shape = shape
        width = shape.width
        digits = Digits(shape.levels)
        self.digits = digits
        self.embed = TokenEmbedding(digits, width, shape.num_tokens)
        self.positions = nn.Parameter(torch.randn(shape.num_tokens + 1, width))
        self.conditions = Conditions([len(values) for values in shape.attributes.values()], width)
        self.dropout = nn.Dropout(shape.dropout)
        self.transformer = llama(width, shape.depth, shape.heads, shape.num_tokens + 1, shape.dropout)
        self.head = TokenHead(digits, width, shape.num_tokens)

    def __init_subclass__(cls, kind: str, **options: Any):
        super().__init_subclass__(**options)
        Prior.kinds[kind] = cls

    @staticmethod
    def build(shape: PriorShape) -> Prior:
        return Prior.kinds[shape.kind](shape)

    def forward(self, ids: Tensor, asked: Tensor) -> Tensor:
        """The log-likelihood of each token, nats [B, K]."""
        raise NotImplementedError

    @property
    def anything(self) -> list[int]:
        """`asked` of one sequence, for none of the conditions."""
        return [len(values) for values in self.shape.attributes.values()]

    def indices(self, words: Mapping[str, str]) -> list[int]:
        """`asked` of one sequence in words: {"weather": "rainy"}. Raises `ConfigError` for what it was not
        trained with.
        """
        found = self.anything
        names = list(self.shape.attributes)
        for name, value in words.items():
            if name not in names:
                can = f"it knows {', '.join(names)}" if names else "it was trained without conditions"
                raise ConfigError(f"this prior cannot be asked for {name}={value}: {can}")
            values = self.shape.attributes[name]
            if value not in values:
                raise ConfigError(f"{name}={value} is unknown to this prior: type one of {', '.join(values)}")
            found[names.index(name)] = values.index(value)
        return found

    @property
    def device(self) -> torch.device:
        return self.positions.device

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: t.contiguous() for n, t in self.state_dict().items()}, folder / "model.safetensors")
        text = json.dumps(self.shape.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")

    @staticmethod
    def from_pretrained(folder: str | Path) -> Prior:
        """The prior that `save_pretrained` wrote, in eval mode. Raises `ConfigError` if it is incomplete."""
        folder = Path(folder)
        try:
            values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            shape = PriorShape(**values)
        except (OSError, ValueError, TypeError) as error:
            what = type(error).__name__
            raise ConfigError(
                f"{folder} holds no prior ({what} in config.json): type a trained one"
            ) from None
        if lacking := [name for name in PriorShape.model_fields if name not in values]:  # not filled in
            raise ConfigError(f"{folder}: config.json lacks {some(lacking)}: bring the whole file")
        prior = Prior.build(shape)
        state = read_file(folder / "model.safetensors", "bring the whole file")
        check_complete(state, prior, folder / "model.safetensors")
        prior.load_state_dict(state)
        return prior.eval()


class AutoregressivePrior(Prior, kind="autoregressive"):
    """Token by token: position k sees what is asked for and tokens 1 … k - 1."""

    def forward(self, ids: Tensor, asked: Tensor) -> Tensor:
        return self.head.log_likelihood(self.logits(ids[:, :-1], asked), ids)

    def logits(self, ids: Tensor, asked: Tensor) -> Tensor:
        """Known tokens [B, k] -> logits of tokens 1 … k + 1, [B, k + 1, total]."""
        return self.head(self.features(self.inputs(ids, asked)))

    def inputs(self, ids: Tensor, asked: Tensor) -> Tensor:
        """The start of a sequence and known tokens [B, k], as vectors [B, 1 + k, width]."""
        start = self.conditions(asked)[:, None] + self.positions[:1]
        return torch.cat([start, self.vectors(ids, 0)], 1)

    def vectors(self, ids: Tensor, k: int) -> Tensor:
        """Tokens k … k + n - 1 [B, n], counted from 0, as vectors [B, n, width]."""
        return self.embed(ids, k) + self.positions[k + 1 : k + 1 + ids.shape[1]]

    def features(self, inputs: Tensor, cache: Cache | None = None) -> Tensor:
        """Inputs [B, n, width] -> features of the tokens that follow each of them; `cache` holds keys and
        values of the inputs before, and gets theirs.
        """
        options = {} if cache is None else dict(past_key_values=cache, use_cache=True)
        return self.transformer(inputs_embeds=self.dropout(inputs), **options).last_hidden_state


class MaskedPrior(Prior, kind="masked"):
    """All tokens at once: each sees what is asked for and every token that is known (MaskGIT)."""

    def __init__(self, shape: PriorShape):
        super().__init__(shape)
        self.mask = nn.Parameter(torch.randn(shape.width))

    def forward(self, ids: Tensor, asked: Tensor) -> Tensor:
        """Hides tokens at random, 2/π · arccos(u) of them for u uniform; 0 where a token was known."""
        share = torch.rand(len(ids), 1, device=ids.device).acos() / (math.pi / 2)
        order = torch.rand(ids.shape, device=ids.device).argsort(1)
        hidden = order < (share * ids.shape[1]).ceil().clamp_min(1)
        log_p = self.head.log_likelihood(self.logits(ids.masked_fill(hidden, -1), asked), ids)
        return log_p * hidden

    def logits(self, ids: Tensor, asked: Tensor) -> Tensor:
        """ids [B, K], -1 where they are hidden -> logits of every token, [B, K, total]."""
        known = (ids >= 0)[..., None]
        tokens = torch.where(known, self.embed(ids.clamp_min(0)), self.mask)
        x = torch.cat([self.conditions(asked)[:, None], tokens], 1) + self.positions
        everywhere = torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        return self.head(
            self.transformer(inputs_embeds=self.dropout(x), attention_mask=everywhere).last_hidden_state[
                :, 1:
            ]
        )
