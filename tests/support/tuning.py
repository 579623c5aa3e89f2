"""Small tokenizers, fresh or started from another, for tests of fine-tuning."""

import torch

from tok1d.config.schema import StartConfig, TokenizerConfig
from tok1d.models.finetune import load_from_tokenizer
from tok1d.models.tokenizer import Tokenizer

SMALL = dict(
    image_size=16, patch_size=4, encoder_size="nano", decoder_size="nano", num_latent_tokens=8, elastic=False
)


def fresh(**params) -> Tokenizer:
    torch.manual_seed(7)
    return Tokenizer(TokenizerConfig(**SMALL | params))


def tuned(parent, **params) -> tuple[Tokenizer, dict]:
    """A tokenizer that starts from `parent`, and its report's rows by name."""
    model = fresh(**params)
    report = load_from_tokenizer(model, StartConfig(init_from=str(parent)))
    return model, {row["name"]: row for row in report["tensors"]} | {"report": report}
