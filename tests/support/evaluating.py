"""Small tokenizers and evaluated runs."""

from dataclasses import dataclass

import numpy as np
import torch

from tok1d.config.parse import parse_train
from tok1d.config.schema import EvalConfig, TokenizerConfig
from tok1d.data.dataset import ImageDataset
from tok1d.data.toy_roads.draw import draw_scene
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run

TINY = dict(
    image_size=16, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=4, elastic=True,
    toy_images=2, toy_val_images=12,
)  # fmt: skip


@dataclass(frozen=True)
class Roads(ImageDataset):
    """Toy roads by index, of which the first is `start`."""

    start: int = 0

    def __getitem__(self, i: int) -> np.ndarray:
        return np.asarray(draw_scene(self.start + i, self.size))


def roads(count: int, size: int = 32, start: int = 0) -> Roads:
    names = [f"toy-{start + i}" for i in range(count)]
    return Roads(size, names, None, f"roads-{start}-{count}", {}, start)


def build(**config) -> Tokenizer:
    torch.manual_seed(0)
    small = dict(
        image_size=32,
        encoder="vit",
        patch_size=8,
        encoder_size="nano",
        decoder_size="nano",
        num_latent_tokens=8,
    )
    tokenizer = Tokenizer(TokenizerConfig(**small | {"elastic": True} | config)).eval()
    with torch.no_grad():  # the pixel head starts at 0
        for p in tokenizer.decoder.parameters():
            p += 0.05 * torch.randn_like(p)
    return tokenizer


class Means:
    """A peer's tokenizer: ids of the mean gray in k columns, of 16 levels."""

    name, token_counts, codebook_size = "means", (2, 4), 16

    def encode(self, images, num_tokens):
        columns = images.mean((1, 2)).unfold(1, 32 // num_tokens, 32 // num_tokens).mean(2)
        return (columns * 15).round().long()

    def decode(self, ids):
        return (ids / 15).repeat_interleave(32 // ids.shape[1], 1)[:, None, None].expand(-1, 3, 32, -1)


FAST = EvalConfig(resamples=100, linear_code=False)


def finished_run(outputs, name: str, seed: int = 0, **params) -> Run:
    """A run with random weights, as if it had been trained."""
    configs = parse_train(TINY | params | {"outputs": outputs, "run": name})
    run = Run.open(*configs)
    torch.manual_seed(seed)
    tokenizer = Tokenizer(next(c for c in configs if isinstance(c, TokenizerConfig)))
    with torch.no_grad():
        for p in tokenizer.decoder.parameters():
            p += 0.05 * torch.randn_like(p)
    tokenizer.save_pretrained(run / "model")
    run.finish()
    return run
