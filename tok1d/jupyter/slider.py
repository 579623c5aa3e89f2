"""A slider over token counts. It is linked in the browser: it needs no kernel once shown, and a headless
papermill run never waits for it (no `ipywidgets.Output`, no `interact`).
"""

import base64
import html
import io
import secrets

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
        """One self-contained HTML element without script: a radio button for each count, frames as data URIs.

        A style sheet shows the frame of the button that is checked. Where it is taken out, as from a notebook
        that is not trusted, the buttons stay hidden and the frames stand one below the other. Any number of
        sliders can share a page: the buttons of a form know each other alone.
        """
        group = secrets.token_hex(4)
        frames = "".join(
            f'<label style="display:none"><input type="radio" name="tokens-{group}" autocomplete="off" '
            f'aria-label="{_tokens(n)}"{" checked" if i == self.start else ""}><span>{n}</span></label>'
            f'<figure><figcaption>{html.escape(caption)}</figcaption><img alt="Originals above their '
            f'reconstructions" src="data:image/webp;base64,{base64.b64encode(frame).decode()}"></figure>'
            for i, (n, caption, frame) in enumerate(zip(self.counts, self.captions, self.frames, strict=True))
        )
        columns = f"repeat({len(self.counts)},minmax(0,3.6em)) 1fr"
        return (
            f'<div class="tok1d-slider"><style>{_STYLE}</style>'
            f'<form method="dialog" role="radiogroup" aria-label="Number of tokens" '
            f'style="grid-template-columns:{columns}">{frames}</form></div>'
        )

    def _repr_mimebundle_(self, **kwargs) -> dict:
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        counts = ", ".join(map(str, self.counts))
        return bundle | {
            "text/plain": f"TokenSlider({self.num_images} images, tokens {counts})",
            "text/html": self.to_html(),
        }


# Buttons on a line above the frames, of which one is shown; without :has() all are, and no button.
_STYLE = """
.tok1d-slider{margin:.5em 0;font-size:14px;line-height:1.4}
.tok1d-slider figure{margin:0 0 1em}
.tok1d-slider figcaption{margin:0 0 6px;font-weight:600;font-variant-numeric:tabular-nums}
.tok1d-slider img{display:block;max-width:100%;height:auto}
@supports selector(:has(a)){
.tok1d-slider form{display:grid}
.tok1d-slider label{display:flex!important;grid-row:1;position:relative;flex-direction:column;
 align-items:center;padding:0 0 6px;cursor:pointer;color:#808080;font-size:12px}
.tok1d-slider label::before{content:"";position:absolute;top:9px;left:0;right:0;height:3px;background:#8888}
.tok1d-slider label:first-child::before{left:50%}
.tok1d-slider label:nth-last-child(2)::before{right:50%}
.tok1d-slider input{position:relative;width:18px;height:18px;margin:1px;accent-color:#3b6fd4;cursor:pointer}
.tok1d-slider label:has(:checked){font-weight:600}
.tok1d-slider figure{display:none;grid-row:2;grid-column:1/-1;margin:0}
.tok1d-slider label:has(:checked)+figure{display:block}
}
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
