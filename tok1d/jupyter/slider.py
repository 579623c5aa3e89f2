"""A slider over token counts. It is linked in the browser: it needs no kernel once shown, and a headless
papermill run never waits for it (no `ipywidgets.Output`, no `interact`).
"""

import base64
import html
import io

import ipywidgets
import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 128  # pixels: images with fewer rows are enlarged to about this
WIDEST = 1040  # pixels: a composed picture wraps its images at this width
GAP = 4  # pixels between two images
GRAY = (128, 128, 128, 255)  # labels: readable on a light and on a dark page


class TokenSlider(ipywidgets.VBox):
    """Originals above their reconstructions, with a slider over the number of tokens.

    originals: uint8 [M, H, W, 3] or [M, 3, H, W], array or tensor.
    reconstructions: {number of tokens: the same}, shown in ascending order.
    captions: {number of tokens: text} such as "32 tokens · 512 bits · PSNR 22.1 dB"; default "32 tokens".
    others: {name: {number of tokens: the same}}, a further row each, such as another tokenizer's.
    start: the token count shown first; default the middle one.
    quality: WebP quality of the frames, 1 … 100.

    In JupyterLab this is a widget linked in the front end, so it moves without a kernel. Where widgets do not
    live (`tok1d report`, nbconvert) the same display carries `to_html()`, live offline in any browser.
    Images with few rows are enlarged to about 128 (bicubic), those above 256 pixels reduced, and WebP loses a
    little: for exact pixels look at the files of the run.

    Raises ValueError when there is nothing to show, or shapes, dtype or token counts do not match.
    """

    def __init__(
        self,
        originals,
        reconstructions: dict,
        captions: dict[int, str] | None = None,
        *,
        others: dict[str, dict] | None = None,
        start: int | None = None,
        quality: int = 90,
    ):
        top = _images("originals", originals)
        if not reconstructions:
            raise ValueError("reconstructions is empty: give {num_tokens: uint8 images [M, H, W, 3]}.")
        counts = sorted(reconstructions)
        below = [("", "reconstructions", reconstructions)]
        below += [(name, f"others[{name!r}]", images) for name, images in (others or {}).items()]
        rows: dict[int, dict[str, np.ndarray]] = {n: {"original": top} for n in counts}
        for name, argument, images in below:
            if missing := sorted(set(counts) - set(images)):
                raise ValueError(f"{argument} lacks token counts {missing}.")
            for n in counts:
                row = _images(f"{argument}[{n}]", images[n])
                if row.shape != top.shape:
                    raise ValueError(f"{argument}[{n}] has shape {row.shape}, originals {top.shape}.")
                rows[n][name or _tokens(n)] = row
        if unknown := sorted(set(captions or {}) - set(counts)):
            raise ValueError(f"captions has token counts {unknown} that reconstructions lacks ({counts}).")
        start = counts[len(counts) // 2] if start is None else start
        if start not in rows:
            raise ValueError(f"start={start} is not one of the token counts {counts}.")

        self.counts, self.start, self.num_images = counts, counts.index(start), len(top)
        self.captions = [(captions or {}).get(n, _tokens(n)) for n in counts]
        self.frames = [_webp(compose(rows[n]), quality) for n in counts]
        super().__init__(children=self._view())

    def _view(self) -> list[ipywidgets.Widget]:
        """A slider and a Stack of (caption, picture), linked by jslink: no kernel is needed to move it."""
        slider = ipywidgets.SelectionSlider(
            options=[(str(n), i) for i, n in enumerate(self.counts)], index=self.start, description="tokens",
            style={"description_width": "initial"}, layout=ipywidgets.Layout(width="min(560px, 100%)"),
        )  # fmt: skip
        pages = [
            ipywidgets.VBox([ipywidgets.HTML(f"<b>{html.escape(caption)}</b>"), _picture(frame)])
            for caption, frame in zip(self.captions, self.frames, strict=True)
        ]
        stack = ipywidgets.Stack(pages, selected_index=self.start)
        self._link = ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
        return [slider, stack]

    def to_html(self) -> str:
        """One self-contained HTML element: a range input, its ticks, frames as data URIs, one line of script.

        It uses no id and no global name, so any number of sliders can share a page.
        """
        last = max(1, len(self.counts) - 1)
        frames = "".join(
            f'<img src="data:image/webp;base64,{base64.b64encode(frame).decode()}" '
            f'alt="{html.escape(caption)}"{"" if i == self.start else " hidden"}>'
            for i, (caption, frame) in enumerate(zip(self.captions, self.frames, strict=True))
        )
        ticks = " ".join(
            f'<span style="left:{100 * i / last:.2f}%">{n}</span>' for i, n in enumerate(self.counts)
        )
        return _HTML.format(
            style=_STYLE, script=_SCRIPT, frames=frames, ticks=ticks,
            start=self.start, max=len(self.counts) - 1, caption=html.escape(self.captions[self.start]),
            width=min(560, 60 + 64 * len(self.counts)),
        )  # fmt: skip

    def _repr_mimebundle_(self, **kwargs) -> dict:
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        counts = ", ".join(map(str, self.counts))
        return bundle | {
            "text/plain": f"TokenSlider({self.num_images} images, tokens {counts})",
            "text/html": self.to_html(),
        }


_HTML = """<div class="tok1d-slider" role="group" aria-label="Reconstructions by number of tokens">
<style>{style}</style>
<label style="width:min({width}px,100%)"><b>tokens</b>
<input type="range" min="0" max="{max}" step="1" value="{start}" autocomplete="off" aria-valuetext="{caption}"
 oninput="{script}"><span class="ticks" aria-hidden="true">{ticks}</span></label>
<output>{caption}</output>
<div class="frames">{frames}</div></div>"""

_SCRIPT = (
    "const box=this.closest('.tok1d-slider'),all=box.querySelectorAll('.frames img'),now=all[+this.value];"
    "all.forEach(f=>f.hidden=f!==now);box.querySelector('output').textContent=now.alt;"
    "this.setAttribute('aria-valuetext',now.alt)"
)

# The thumb's middle travels from 8 px to (width - 8 px), so the ticks sit in a box inset by as much.
_STYLE = """
.tok1d-slider{margin:.5em 0;font-size:14px;line-height:1.4}
.tok1d-slider label{display:block}
.tok1d-slider input{display:block;width:100%;height:20px;margin:4px 0 0;accent-color:#3b6fd4;cursor:pointer}
.tok1d-slider .ticks{display:block;position:relative;height:20px;margin:0 8px;color:#808080;font-size:12px}
.tok1d-slider .ticks span{position:absolute;transform:translateX(-50%)}
.tok1d-slider output{display:block;margin:2px 0 6px;font-weight:600;font-variant-numeric:tabular-nums}
.tok1d-slider img{display:block;max-width:100%;height:auto}
.tok1d-slider img[hidden]{display:none}
"""


def compose(rows: dict[str, np.ndarray]) -> Image.Image:
    """uint8 [M, H, W, 3] by label → one RGBA picture, a row of images under each label."""
    m, height, width, _ = next(iter(rows.values())).shape
    scale = max(1, round(TILE / height)) if max(height, width) <= 256 else 256 / max(height, width)
    size = (round(width * scale), round(height * scale))
    columns = max(1, min(m, (WIDEST + GAP) // (size[0] + GAP)))
    columns = -(-m // -(-m // columns))  # even rows: 10 images wrap as 5 + 5, never as 8 + 2
    font, strip = ImageFont.load_default(13), 20

    row, lines = strip + size[1], len(rows) * -(-m // columns)
    picture = Image.new("RGBA", (columns * (size[0] + GAP) - GAP, lines * (row + GAP) - GAP))
    draw = ImageDraw.Draw(picture)
    for block, first in enumerate(range(0, m, columns)):
        for line, (label, images) in enumerate(rows.items()):
            y = (len(rows) * block + line) * (row + GAP)
            draw.text((0, y + 2), label, GRAY, font)
            for column, image in enumerate(images[first : first + columns]):
                tile = Image.fromarray(image).resize(
                    size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
                )
                picture.paste(tile, (column * (size[0] + GAP), y + strip))
    return picture


def _images(name: str, images) -> np.ndarray:
    """Array or tensor → uint8 array [M, H, W, 3], or a ValueError that names the argument."""
    array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    if array.ndim == 4 and array.shape[1] == 3 != array.shape[3]:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] != 3 or not array.size or array.dtype != np.uint8:
        raise ValueError(f"{name} must be uint8 [M, H, W, 3], got {array.dtype} {list(array.shape)}.")
    return np.ascontiguousarray(array)


def _tokens(n: int) -> str:
    return f"{n} token" if n == 1 else f"{n} tokens"


def _webp(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _picture(frame: bytes) -> ipywidgets.Image:
    layout = ipywidgets.Layout(max_width="100%", object_fit="contain", align_self="flex-start")
    return ipywidgets.Image(value=frame, format="webp", layout=layout)
