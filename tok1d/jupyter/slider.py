"""A slider over token counts, of HTML and CSS alone: it needs no kernel, no widget and no script, so it lives
in JupyterLab, in an executed notebook opened anywhere, and in the report.
"""

import base64
import io
import secrets

import numpy as np
from PIL import Image

from tok1d.jupyter.tables import html_text

TILE = 128  # pixels: images with fewer rows are enlarged to about this
GAP = 4  # pixels between an original and its reconstructions


class TokenSlider:
    """Originals above their reconstructions, with a slider over the number of tokens.

    originals: uint8 [M, H, W, 3] or [M, 3, H, W], array or tensor.
    reconstructions: {number of tokens: the same}, shown in ascending order.
    captions: {number of tokens: text} such as "32 tokens · 512 bits · PSNR 22.1 dB"; default "32 tokens".
    others: {name: {number of tokens: the same}}, a further row each, such as another tokenizer's.
    names: what the first two rows are called.
    start: the token count shown first; default the middle one.
    quality: WebP quality of the frames, 1 … 100.

    A notebook's last expression shows it. Images with few rows are enlarged to about 128 (bicubic), those
    above 256 pixels reduced, and WebP loses a little: for exact pixels look at the files of the run.

    Raises ValueError when there is nothing to show, or shapes, dtype or token counts do not match.
    """

    def __init__(
        self,
        originals,
        reconstructions: dict,
        captions: dict[int, str] | None = None,
        *,
        others: dict[str, dict] | None = None,
        names: tuple[str, str] = ("original", "reconstruction"),
        start: int | None = None,
        quality: int = 90,
    ):
        top = _images("originals", originals)
        if not reconstructions:
            raise ValueError("reconstructions is empty: give {num_tokens: uint8 images [M, H, W, 3]}.")
        counts = sorted(reconstructions)
        below = [(names[1], "reconstructions", reconstructions)]
        below += [(name, f"others[{name!r}]", images) for name, images in (others or {}).items()]
        rows: dict[int, list[np.ndarray]] = {n: [top] for n in counts}
        for _, argument, images in below:
            if missing := sorted(set(counts) - set(images)):
                raise ValueError(f"{argument} lacks token counts {missing}.")
            for n in counts:
                row = _images(f"{argument}[{n}]", images[n])
                if row.shape != top.shape:
                    raise ValueError(f"{argument}[{n}] has shape {row.shape}, originals {top.shape}.")
                rows[n].append(row)
        if unknown := sorted(set(captions or {}) - set(counts)):
            raise ValueError(f"captions has token counts {unknown} that reconstructions lacks ({counts}).")
        start = counts[len(counts) // 2] if start is None else start
        if start not in rows:
            raise ValueError(f"start={start} is not one of the token counts {counts}.")

        self.counts, self.start, self.num_images = counts, counts.index(start), len(top)
        self.rows = [names[0], *(name for name, _, _ in below)]
        self.captions = [(captions or {}).get(n, _tokens(n)) for n in counts]
        self.frames = [[_webp(strip, quality) for strip in strips(rows[n])] for n in counts]

    def __repr__(self) -> str:
        return f"TokenSlider({self.num_images} images, tokens {', '.join(map(str, self.counts))})"

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """One self-contained HTML element without script: a radio button for each count, frames as data URIs.

        A style sheet shows the frame of the button that is checked. Where it is taken out, as from a notebook
        that is not trusted, or a browser does not know enough of it, the buttons stay hidden and each frame
        folds by itself, the first shown open. A single count has no button. Any number of sliders can share a
        page: the buttons of a form know each other alone. JupyterLab leaves them their arrow keys.
        """
        group = secrets.token_hex(4)
        shown = zip(self.counts, self.captions, self.frames, strict=True)
        frames = "".join(self._frame(group, i, *frame) for i, frame in enumerate(shown))
        legend = html_text(", ".join(self.rows))
        if len(self.counts) > 1:
            columns = f"repeat({len(self.counts)},minmax(0,3.6em)) 1fr"
            frames = (
                f'<form method="dialog"><div class="tokens" role="radiogroup" aria-label="Number of tokens" '
                f'style="grid-template-columns:{columns}">{frames}</div></form>'
            )
        return f'<div class="tok1d-slider"><style>{_STYLE}</style>{frames}<p>From above: {legend}.</p></div>'

    def _frame(self, group: str, i: int, count: int, caption: str, pictures: list[bytes]) -> str:
        caption, rows = html_text(caption), html_text(", ".join(self.rows[1:]))
        name = caption if caption.startswith(_tokens(count)) else f"{_tokens(count)}: {caption}"
        images = "".join(
            f'<img alt="Image {m}: {html_text(self.rows[0])}, below it {rows}, {_tokens(count)}" '
            f'src="data:image/webp;base64,{base64.b64encode(picture).decode()}">'
            for m, picture in enumerate(pictures, 1)
        )
        if len(self.counts) == 1:
            return f"<figure><figcaption>{caption}</figcaption>{images}</figure>"
        checked, opened = (" checked", " open") if i == self.start else ("", "")
        return (
            f'<label hidden style="display:none"><input type="radio" name="tokens-{group}" '
            f'autocomplete="off" data-lm-suppress-shortcuts="true" '
            f'aria-label="{name}"{checked}><span>{count}</span></label>'
            f'<details name="frames-{group}"{opened}><summary>{caption}</summary>'
            f"<figure><figcaption hidden>{caption}</figcaption>{images}</figure></details>"
        )


# Buttons on a line above the frames, of which one is shown; without :has() or ::details-content frames fold.
_STYLE = """
.tok1d-slider{margin:.5em 0;font-size:14px;line-height:1.4;max-width:1040px}
.tok1d-slider p{margin:.3em 0;font-size:12.5px;opacity:.8}
.tok1d-slider figure{display:grid;gap:6px;margin:0 0 .5em;
 grid-template-columns:repeat(auto-fit,minmax(min(104px,30%),max-content))}
.tok1d-slider figcaption{grid-column:1/-1;font-weight:600;font-variant-numeric:tabular-nums}
.tok1d-slider img{display:block;width:100%;height:auto;margin:0}
@supports selector(:has(a)) and selector(::details-content){
.tok1d-slider .tokens{display:grid}
.tok1d-slider label{display:flex!important;grid-row:1;position:relative;flex-direction:column;
 align-items:center;padding:0 0 6px;cursor:pointer;font-size:12px}
.tok1d-slider label::before{content:"";position:absolute;top:9px;left:0;right:0;height:3px;background:#8888}
.tok1d-slider label:first-child::before{left:50%}
.tok1d-slider label:nth-last-child(2)::before{right:50%}
.tok1d-slider input{position:relative;width:18px;height:18px;margin:1px;accent-color:#3b6fd4;cursor:pointer}
.tok1d-slider label:has(:checked){font-weight:700}
.tok1d-slider summary,.tok1d-slider details{display:none}
.tok1d-slider details::details-content{content-visibility:visible;display:block}
.tok1d-slider label:has(:checked)+details{display:block;grid-row:2;grid-column:1/-1}
.tok1d-slider figcaption{display:block}
}
"""


def strips(rows: list[np.ndarray]) -> list[Image.Image]:
    """Rows of uint8 [M, H, W, 3] → M pictures: an image of the first row above those of the others."""
    _, height, width, _ = rows[0].shape
    scale = max(1, round(TILE / height)) if max(height, width) <= 256 else 256 / max(height, width)
    size = (round(width * scale), round(height * scale))
    resample = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    made = []
    for images in zip(*rows, strict=True):
        strip = Image.new("RGBA", (size[0], len(images) * (size[1] + GAP) - GAP))
        for line, image in enumerate(images):
            strip.paste(Image.fromarray(image).resize(size, resample), (0, line * (size[1] + GAP)))
        made.append(strip)
    return made


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
