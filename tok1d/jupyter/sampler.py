"""Ask a prior for images: class, guidance, temperature and seed, and a grid that follows.

Needs its kernel; what stays of it in a saved notebook, or a report, is the grid that was drawn last. Nothing
here waits for anybody, so a headless run goes on.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import ipywidgets
from PIL import Image

from tok1d.config.fields import ConfigError
from tok1d.config.generation import SampleConfig
from tok1d.figures.images import channels_last
from tok1d.generation.generator import Generator
from tok1d.jupyter.tables import html_text

TILE, COLUMNS, GAP = 128, 4, 4  # pixels, images, pixels
ANY = "any"


class SamplePanel(ipywidgets.VBox):
    """Generated images as they are asked for. `count` of them; `config` says what the controls do not."""

    def __init__(self, generator: Generator, config: SampleConfig | None = None, count: int = 8):
        self.generator, self.config, self.count = generator, config or SampleConfig(), count
        self.asked = {
            name: ipywidgets.Dropdown(options=[ANY, *values], description=name)
            for name, values in generator.prior.shape.attributes.items()
        }
        wide = {"style": {"description_width": "initial"}, "continuous_update": False}
        self.guidance = ipywidgets.FloatSlider(
            self.config.guidance, min=1, max=5, step=0.25, description="guidance",
            disabled=not self.asked, **wide,
        )  # fmt: skip
        self.temperature = ipywidgets.FloatSlider(
            self.config.temperature, min=0.5, max=1.5, step=0.05, description="temperature", **wide
        )
        K = generator.prior.shape.num_tokens
        self.tokens = ipywidgets.SelectionSlider(
            options=generator.token_counts, value=K, description="tokens", **wide
        )
        self.seed = ipywidgets.IntText(0, description="seed")
        self.grid = ipywidgets.HTML()
        controls = [*self.asked.values(), self.guidance, self.temperature, self.tokens, self.seed]
        for control in controls:
            control.observe(self._draw, names="value")
        super().__init__(
            [ipywidgets.HBox(controls, layout=ipywidgets.Layout(flex_flow="row wrap")), self.grid]
        )
        self._ids: tuple[Any, Any] = (None, None)  # of the last question, and what it was
        self._draw()

    def _draw(self, change: object = None) -> None:
        words = [f"{name}={box.value}" for name, box in self.asked.items() if box.value != ANY]
        try:
            self.grid.value = self._images(words)
        except ConfigError as error:
            self.grid.value = f"<p>{html_text(str(error))}</p>"

    def _images(self, words: list[str]) -> str:
        guidance = self.guidance.value if words else 1.0
        question = (tuple(words), guidance, self.temperature.value, self.seed.value)
        if self._ids[1] != question:
            config = self.config.model_copy(
                update={"guidance": guidance, "temperature": self.temperature.value}
            )
            asked = self.generator.asked(words, self.count)
            self._ids = self.generator.ids(asked, config, abs(self.seed.value)), question
        pictures = channels_last(self.generator.decode(self._ids[0][:, : self.tokens.value]))
        says = html_text(", ".join(words) or "anything")
        return (
            f'<img alt="{self.count} generated images: {says}" '
            f'src="data:image/png;base64,{base64.b64encode(png(pictures)).decode()}">'
        )


def png(pictures: Any) -> bytes:
    """uint8 [M, H, W, 3] in rows of four, each about 128 pixels wide."""
    scale = max(1, round(TILE / pictures.shape[2]))
    height, width = scale * pictures.shape[1], scale * pictures.shape[2]
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGBA", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP))
    for i, picture in enumerate(pictures):
        tile = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        sheet.paste(tile, (i % columns * (width + GAP), i // columns * (height + GAP)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
