"""What of the explorer needs no kernel: HTML and CSS alone, for an executed notebook and the report.

ModelSlider(models, images)     # all models at all token counts, under one slider
Wipe(models[0], images)         # originals over reconstructions: drag the corner, or hold the box
EffectSlider(models[0], image)  # what each token changes
"""

from __future__ import annotations

import base64
import secrets
import textwrap

import torch
from matplotlib.figure import Figure
from torch import Tensor

from tok1d.data.dataset import to_uint8
from tok1d.explore.microscope import Microscope
from tok1d.figures.images import channels_last, picture_rows, tokens
from tok1d.jupyter.explorer.models import LINEAR, Model, Row, caption, encoded, heat
from tok1d.jupyter.slider import TokenSlider
from tok1d.jupyter.tables import html_text

FIRST = 16  # tokens whose effects are shown


class ModelSlider:
    """Originals, uint8 [M, 3, S, S], above what each model makes of them at each token count, and the linear
    code of the first one's bits. A model without a count shows its next smaller one, or gray.
    """

    def __init__(self, models: list[Model], images: Tensor):
        rows = [[model.row(image) for image in images] for model in models]
        lines = [models[0].line_to_beat(image) for image in images]
        counts = sorted({count for row in rows for count in row[0].frames})
        mine, *others = [at_counts(row, counts) for row in rows]
        below = {model.name: row for model, row in zip(models[1:], others, strict=True)}
        found = [line for line in lines if line]
        if len(found) == len(images):
            below[LINEAR] = at_counts(found, counts)
        captions = {count: mean_caption(rows[0], count) for count in counts}
        self.slider = TokenSlider(images, mine, captions, others=below, names=("original", models[0].name))

    def _repr_html_(self) -> str:
        return self.slider.to_html()


def at_counts(rows: list[Row], counts: list[int]) -> dict[int, Tensor]:
    """Rows of M images -> uint8 [M, 3, S, S] by each of `counts`."""

    def frame(row: Row, count: int) -> Tensor:
        own = [k for k in row.frames if k <= count]
        some = row.frames[own[-1]] if own else next(iter(row.frames.values()))
        return some if own else torch.full_like(some, 128)

    return {count: torch.stack([frame(row, count) for row in rows]) for count in counts}


def mean_caption(rows: list[Row], count: int) -> str:
    if count not in rows[0].frames:
        return tokens(count)
    i = list(rows[0].frames).index(count)
    mean = {name: [sum(row.numbers[name][i] for row in rows) / len(rows)] for name in rows[0].numbers}
    return caption(Row(rows[0].name, {count: rows[0].frames[count]}, mean), 0)


class EffectSlider:
    """Of each of the first tokens: an image, uint8 [3, S, S], without it, and how much each pixel changed; or
    why there is no such map.
    """

    def __init__(self, model: Model, image: Tensor):
        self.why = model.untouchable
        if self.why:
            return
        microscope = Microscope(model.largest, image)
        shown = range(min(FIRST, len(microscope)))
        without = {
            k: to_uint8(image)[None] for k, image in zip(shown, microscope.without(shown), strict=True)
        }
        maps = {k: heat(effect)[None] for k, effect in zip(shown, microscope.effects(shown), strict=True)}
        lost = zip(shown, microscope.lost(shown), strict=True)
        captions = {k: f"without token {k}: {-loss:+.2f} dB" for k, loss in lost}
        names = ("all tokens", "without one")
        whole = microscope.decode(microscope.ids)[None]
        self.slider = TokenSlider(whole, without, captions, others={"effect": maps}, names=names, start=0)

    def _repr_html_(self) -> str:
        return f"<p>{html_text(self.why)}</p>" if self.why else self.slider.to_html()


def first_and_last(model: Model, images: Tensor) -> Figure | None:
    """What the first token knows that the last does not: images, uint8 [M, 3, S, S], of one token alone, and
    of all but one. None where tokens cannot be touched.
    """
    if model.untouchable:
        return None
    kept = [Microscope(model.largest, image).first_and_last() for image in images]
    rows = {name: torch.stack([each[name] for each in kept]) for name in kept[0]}
    originals = {"original": channels_last(images)}
    return picture_rows(
        originals | {textwrap.fill(name, 12): channels_last(row) for name, row in rows.items()}
    )


class Wipe:
    """Originals over reconstructions, at a middle token count: each uncovered by dragging its corner, or, by
    keyboard, all originals shown by a checkbox.
    """

    def __init__(self, model: Model, images: Tensor, count: int = 0):
        rows = [model.row(image) for image in images]
        counts = list(rows[0].frames)
        self.count = count or counts[len(counts) // 2]
        self.pairs = [
            (encoded(image), encoded(row.frames[self.count])) for image, row in zip(images, rows, strict=True)
        ]
        self.name = model.name

    def _repr_html_(self) -> str:
        box = f"wipe-{secrets.token_hex(4)}"
        pictures = "".join(self._pair(m, *pair) for m, pair in enumerate(self.pairs, 1))
        says = html_text(f"{self.name}, {tokens(self.count)}")
        return (
            f'<div class="tok1d-wipe"><style>{_STYLE}</style><input type="checkbox" id="{box}" '
            f'data-lm-suppress-shortcuts="true"><label for="{box}">show the originals</label>'
            f'<div class="pairs">{pictures}</div>'
            f"<p>Left of each corner the original, right of it {says}: drag.</p></div>"
        )

    def _pair(self, m: int, original: bytes, made: bytes) -> str:
        kind = "png" if original.startswith(b"\x89PNG") else "webp"
        sources = [f"data:image/{kind};base64,{base64.b64encode(data).decode()}" for data in (made, original)]
        return (
            f'<div class="pair"><img alt="Image {m}: {tokens(self.count)}" src="{sources[0]}">'
            f'<div class="over"><img alt="Image {m}: original" src="{sources[1]}"></div></div>'
        )


_STYLE = """
.tok1d-wipe{font-size:14px;max-width:1040px}
.tok1d-wipe .pairs{display:grid;gap:8px;margin:6px 0;grid-template-columns:repeat(auto-fill,192px)}
.tok1d-wipe .pair{position:relative;width:192px;height:192px}
.tok1d-wipe img{position:absolute;inset:0;width:192px;max-width:none;height:192px;margin:0}
.tok1d-wipe .over{position:absolute;inset:0 auto 0 0;width:50%;min-width:18px;max-width:100%;overflow:hidden;
 resize:horizontal;border-right:2px solid #fff;box-sizing:border-box}
.tok1d-wipe input:checked~.pairs .over{width:100%!important}
.tok1d-wipe p{margin:.3em 0;font-size:12.5px}
"""
