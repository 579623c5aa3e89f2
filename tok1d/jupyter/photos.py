"""Photographs of one's own, reconstructed: a PNG for each token count, and one HTML file with the slider."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.data.dataset import to_float
from tok1d.evaluation.evaluate import reconstruct
from tok1d.evaluation.metrics.images import psnr, ssim
from tok1d.explore.line_to_beat import linear_rows
from tok1d.explore.opened import facts_of, open_any
from tok1d.explore.photo import open_photo
from tok1d.figures.images import ORIGINAL, channels_last, tokens
from tok1d.jupyter.slider import TokenSlider
from tok1d.jupyter.tables import html_text
from tok1d.system.files import replacing

PLACE = Path("outputs/photos")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>:root{{color-scheme:light dark}}body{{font-family:system-ui,sans-serif;margin:1em}}</style>
</head><body><h1>{title}</h1>{slider}</body></html>
"""


def reconstruct_photos(
    where: str, photos: Sequence[Path], counts: str = "", folder: Path | None = None
) -> list[Path]:
    """The files that `tok1d reconstruct` makes: `PHOTO_original.png` and `PHOTO_8_tokens.png` of each, and
    `slider.html`. `counts` are as typed, such as "1,8,64"; empty: 1, 2, 4 … K.

    Nothing is written unless everything can be. Raises `ConfigError`, `RunError`: no such tokenizer, a photo
    that cannot be opened, a count that it has not, files that are there already.
    """
    tokenizer = open_any(where)
    known, each = facts_of(tokenizer)
    asked = token_counts(counts, known, getattr(tokenizer.config, "elastic", False))
    originals = torch.stack([open_photo(photo, tokenizer.config.image_size) for photo in photos])
    names = different(photo.stem for photo in photos)
    folder = folder or PLACE / names[0]
    labels = {ORIGINAL: originals} | {f"{k}_tokens": torch.empty(0) for k in asked}
    files = [folder / f"{name}_{label}.png" for label in labels for name in names] + [folder / "slider.html"]
    for file in files:
        if file.exists():
            raise ConfigError(f"{file} is there already: type -o and another folder, or delete it")

    made = reconstruct(tokenizer, originals, asked)
    lines = linear_rows(where, tokenizer, originals, asked)
    captions = {k: caption(k, k * each, made[k], lines.get(k), originals) for k in asked}
    others = {"a linear code of as many bits": lines} if lines else None
    slider = TokenSlider(originals, made, captions, others=others)
    title = html_text(f"{', '.join(names)}: {where}")
    for label in labels:
        images = originals if label == ORIGINAL else made[int(label.split("_")[0])]
        for name, pixels in zip(names, channels_last(images), strict=True):
            with replacing(folder / f"{name}_{label}.png") as temporary:
                Image.fromarray(pixels).save(temporary, "PNG")
    with replacing(files[-1]) as temporary:
        temporary.write_text(PAGE.format(title=title, slider=slider.to_html()), encoding="utf-8")
    return files


def token_counts(typed: str, known: tuple[int, ...], elastic: bool) -> tuple[int, ...]:
    """ "1,8,64" -> (1, 8, 64), of the counts that the tokenizer has. Raises `ConfigError`."""
    K = max(known)
    can = f"of 1 … {K}, such as --tokens {','.join(map(str, known))}"
    can = can if elastic else f"--tokens {K}, its only one"
    found = []
    for word in typed.split(",") if typed else ():
        count = int(word) if word.strip().isdecimal() else 0
        if not 1 <= count <= K or (count < K and not elastic):
            raise ConfigError(f"--tokens {typed}: {word.strip() or 'nothing'} is no count here: type {can}")
        found.append(count)
    return tuple(sorted({*found})) or known


def different(stems: Iterable[str]) -> list[str]:
    """File names without suffix, the second `road` as road-2."""
    names: list[str] = []
    for stem in stems:
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def caption(count: int, bits: float, made: Tensor, line: Tensor | None, originals: Tensor) -> str:
    """Such as "8 tokens · 128 bits · PSNR 21.4 dB · SSIM 0.612 (linear code 20.1 dB · 0.580)", of the means
    over the photos.
    """

    def quality(images: Tensor) -> list[float]:
        pair = to_float(images), to_float(originals)
        return [psnr(*pair).mean().item(), ssim(*pair).mean().item()]

    decibels, similarity = quality(made)
    said = f"{tokens(count)} · {bits:,.0f} bits · PSNR {decibels:.1f} dB · SSIM {similarity:.3f}"
    if line is None:
        return said
    decibels, similarity = quality(line)
    return f"{said} (linear code {decibels:.1f} dB · {similarity:.3f})"
