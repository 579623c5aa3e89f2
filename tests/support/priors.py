"""Small tokenizers and priors, and pictures in folders to learn from."""

from pathlib import Path

import torch
from PIL import Image

from tok1d.config.schema import TokenizerConfig
from tok1d.generation.prior import Prior, PriorShape
from tok1d.models.tokenizer import Tokenizer

COLORS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 40, 40)}


def random_prior(kind: str = "autoregressive", seed: int = 0, **shape) -> Prior:
    """A prior whose head says something, in eval mode."""
    torch.manual_seed(seed)
    small = dict(
        num_tokens=5, levels=(4, 3), attributes={"color": ("blue", "green", "red")}, width=64, depth=2
    )
    prior = Prior.build(PriorShape(**{"kind": kind, "heads": 2} | small | shape))
    for parameter in (prior.head.weight, prior.head.bias, prior.head.earlier):
        if parameter is not None:
            torch.nn.init.normal_(parameter, std=0.3)
    return prior.eval()


def linear_tokenizer(folder: Path, **config) -> Tokenizer:
    """A linear code of 16 pixels, or `image_size`, fitted to noisy colors, and saved in `folder`/model."""
    torch.manual_seed(1)
    small = dict(image_size=16, num_latent_tokens=4, decoder_refine="nano", fsq_levels=(4, 3))
    tokenizer = Tokenizer(TokenizerConfig(**small | config))
    size = tokenizer.config.image_size
    noise = torch.randint(-20, 20, (60, 3, size, size)) + torch.randint(0, 256, (60, 3, 1, 1))
    tokenizer.encoder.fit(list(noise.clamp(0, 255).to(torch.uint8)))
    tokenizer.save_pretrained(folder / "model")
    return tokenizer.eval()


def colored_folders(folder: Path, each: int = 4) -> Path:
    """Pictures of three colors in a folder each: their class."""
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            shade = tuple(min(255, c + 3 * i) for c in color)
            Image.new("RGB", (16, 16), shade).save(folder / name / f"{i}.png")
    return folder
