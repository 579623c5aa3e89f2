"""Which models can be explored, and what they make of a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import to_float
from tok1d.evaluation.evaluate import reconstruct
from tok1d.evaluation.metrics.images import build_image_metrics
from tok1d.explore.line_to_beat import linear_rows
from tok1d.explore.opened import SHIPPED, facts_of, open_any
from tok1d.figures.images import tokens
from tok1d.models.quantizers import NO_IDS
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run, newest_finished

LINEAR = "linear code, equal bits"
FINE_TUNE = "fine-tune it first (init_from=…), which makes it a tokenizer of this package"
EXACT = 128  # pixels: smaller frames are kept as PNG, larger ones as WebP


def offered(outputs: str | Path, most: int = 8) -> dict[str, list[str]]:
    """Folders of models by name: the newest finished elastic runs; the fixed ones of a sweep as one, with
    their token counts; and the tokenizer that comes with the project.
    """
    found: dict[str, list[str]] = {}
    fixed: dict[str, dict[int, Run]] = {}
    for run in newest_finished(outputs):
        if run.params["elastic"]:
            found[f"{run.path.parent.name}/{run.name}"] = [str(run.path)]
        else:
            fixed.setdefault(run.path.parent.name, {}).setdefault(run.params["num_latent_tokens"], run)
    for sweep, runs in fixed.items():
        counts = sorted(runs)
        name = f"{sweep}/{runs[counts[0]].name}" if len(runs) == 1 else f"{sweep}, fixed {counts}"
        found[name] = [str(runs[count].path) for count in counts]
    found = dict(list(found.items())[:most])
    if Path(SHIPPED, "model").exists():
        found.setdefault(SHIPPED.removeprefix("outputs/"), [SHIPPED])
    return found


def short(where: str) -> str:
    """A folder's or hub id's last two parts."""
    return "/".join(Path(where).parts[-2:])


class Row(NamedTuple):
    """What one model, or several fixed ones, make of a picture at each token count."""

    name: str
    frames: dict[int, Tensor]  # uint8 [3, S, S] by number of tokens
    numbers: dict[str, list[float]]  # metrics and bits, in the order of frames
    dashed: bool = False  # the line to beat

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "counts": list(self.frames), "dashed": self.dashed} | self.numbers


class Model:
    """Tokenizers of one image size behind one name."""

    def __init__(self, name: str, folders: list[str], lpips_checkpoint: str = ""):
        """With LPIPS if there is a file for it. Raises `ConfigError`, `RunError` for a folder without a
        finished tokenizer, or for that file.
        """
        self.name, self.folders = name, folders
        self.tokenizers = [open_any(folder) for folder in folders]
        self.size = self.tokenizers[0].config.image_size
        if any(each.config.image_size != self.size for each in self.tokenizers):
            raise ConfigError(f"{name} has models of several image sizes: type the folder of one of them")
        asked = ("psnr", "ssim", *(["lpips"] if lpips_checkpoint else []))
        config = EvalConfig(metrics=asked, lpips_checkpoint=lpips_checkpoint)
        self.metrics, _ = build_image_metrics(config, self.size, "cpu")

    @property
    def largest(self) -> Tokenizer:
        """The one with the most tokens, whose tokens are touched. Raises `ConfigError` for a peer."""
        found = max(self.tokenizers, key=lambda each: max(facts_of(each)[0], default=0))
        if not isinstance(found, Tokenizer):
            raise ConfigError(
                f"the tokens of {self.name} cannot be touched here: {found.unexplained or FINE_TUNE}"
            )
        return found

    @property
    def untouchable(self) -> str:
        """Why its tokens cannot be touched; empty if they can."""
        try:
            return "" if self.largest.quantizer.codebook_size else NO_IDS
        except ConfigError as error:
            return str(error)

    def row(self, image: Tensor) -> Row:
        """Of image uint8 [3, S, S]."""
        frames: dict[int, Tensor] = {}
        bits: list[float] = []
        for tokenizer in self.tokenizers:
            counts, each = facts_of(tokenizer)
            made = reconstruct(tokenizer, image[None], counts)
            frames |= {count: images[0] for count, images in made.items() if count}
            bits += [count * each for count in made if count]
        return Row(self.name, frames, self.quality(frames, image) | {"bits": bits})

    def line_to_beat(self, image: Tensor) -> Row | None:
        """The linear code of equal bits; None where there is none, see `linear_rows`."""
        tokenizer = self.tokenizers[-1]
        counts, bits = facts_of(tokenizer)
        made = linear_rows(self.folders[-1], tokenizer, image[None], counts)
        frames = {k: images[0] for k, images in made.items() if k}
        if not frames:
            return None
        numbers = self.quality(frames, image) | {"bits": [k * bits for k in frames]}
        return Row(LINEAR, frames, numbers, dashed=True)

    @torch.no_grad()
    def quality(self, frames: dict[int, Tensor], image: Tensor) -> dict[str, list[float]]:
        """PSNR in dB, SSIM, and LPIPS of each frame."""
        made, original = to_float(torch.stack(list(frames.values()))), to_float(image[None])
        original = original.expand_as(made)
        return {name: metric.measure(made, original).tolist() for name, metric in self.metrics.items()}


def caption(row: Row, i: int) -> str:
    count, numbers = list(row.frames)[i], row.numbers
    return (
        f"{tokens(count)} · {numbers['bits'][i]:,.0f} bits · PSNR {numbers['psnr'][i]:.1f} dB"
        f" · SSIM {numbers['ssim'][i]:.3f}"
    )


def encoded(picture: Tensor) -> bytes:
    """uint8 [3, S, S] -> the bytes of an image file."""
    buffer, image = io.BytesIO(), Image.fromarray(picture.permute(1, 2, 0).numpy())
    if max(image.size) <= EXACT:
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "WEBP", quality=95, method=1)
    return buffer.getvalue()


def heat(map: Tensor) -> Tensor:
    """A map [h, w] in colors, its largest value the brightest, uint8 [3, h, w]."""
    values = (map / map.max().clamp_min(1e-9)).numpy()
    colors = mpl.colormaps["inferno"](values)[..., :3]
    return torch.from_numpy((255 * colors).round().astype(np.uint8)).permute(2, 0, 1)
