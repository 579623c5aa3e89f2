"""The explorer: a picture of one's own under the token slider, and tokens that answer.

    Explorer(photo="holiday.jpg")

Frames are made once for each model and picture and sent together, so the slider moves without the kernel;
an edited token asks it for one picture. Where no kernel runs, a saved notebook or the report, the same frames
stand as plain HTML (`tok1d.jupyter.slider`).
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anywidget
import torch
import traitlets
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import CAN_TYPE, ImageDataset, load_images
from tok1d.data.sources import find_sources
from tok1d.explore.fewest import fewest_tokens
from tok1d.explore.microscope import Microscope
from tok1d.explore.optimize import Edit, inpaint, resemble
from tok1d.explore.photo import open_photo
from tok1d.jupyter.explorer.models import Model, Row, caption, encoded, heat, offered, short
from tok1d.jupyter.slider import TokenSlider
from tok1d.runs import RunError

FRONT = Path(__file__).parent / "front"
PARTS = ("dom", "compare", "microscope", "fill", "main")  # of one JavaScript module
KEPT = 32  # pictures of a model
HEAR = 0.002  # seconds, between steps, in which the kernel hears the front end
FEW = 4  # tokens whose effects are measured before the next message is heard


class Explorer(anywidget.AnyWidget):
    """`models` are folders or hub ids; by default the newest finished run below `outputs`, and others and the
    shipped tokenizer can be chosen. The validation images of `data` can be chosen by index; `photo` is the
    path of the picture shown first; with the file `lpips_checkpoint` LPIPS is measured, too. Raises
    `ConfigError`, `RunError` when there is nothing to begin with.
    """

    _esm = "\n".join((FRONT / f"{part}.js").read_text(encoding="utf-8") for part in PARTS)
    _css = (FRONT / "explorer.css").read_text(encoding="utf-8")
    count = traitlets.Int(0).tag(sync=True)  # of images in the data set

    def __init__(
        self,
        models: tuple[str, ...] = (),
        data: DataConfig | None = None,
        outputs: str | Path = "outputs",
        photo: str = "",
        lpips_checkpoint: str = "",
    ):
        self.choices: dict[str, list[str]] = {}
        for where in models:
            self.choices[self.name_of(where)] = [where]
        self.choices = self.choices or offered(outputs)
        if not self.choices:
            raise RunError(
                f"there is no finished run in {outputs}: train one with 'tok1d run notebooks/train.ipynb'"
            )
        self.data, self.cache = data or DataConfig(), Path(outputs) / ".cache"
        self.lpips_checkpoint = lpips_checkpoint
        self.loaded: dict[str, Model] = {}
        self.datasets: dict[int, ImageDataset] = {}
        self.rows: collections.OrderedDict[tuple[str, str], list[Row]] = collections.OrderedDict()
        self.chosen = [self.model(name).name for name in list(self.choices)[: len(models) or 1]]
        self.sources: dict[bool, Any] = {}  # what was opened: the picture, and the second one
        self.microscope: Microscope | None = None
        self.other: Microscope | None = None
        self.filling: asyncio.Task | None = None
        self.stopped = False
        super().__init__(count=len(self.images))
        self.label, self.image = self.pick({"path": photo} if photo else {"index": 0})
        self.on_msg(self._answer)

    # ---- models and pictures ----

    def name_of(self, where: str) -> str:
        """The last two parts of a folder or hub id, or all of it where that is another model's name."""
        name = short(where)
        return where if self.choices.get(name, [where]) != [where] else name

    def model(self, name: str) -> Model:
        if name not in self.loaded:
            self.loaded[name] = Model(name, self.choices[name], self.lpips_checkpoint)
        return self.loaded[name]

    @property
    def first(self) -> Model:
        return self.model(self.chosen[0])

    @property
    def images(self) -> ImageDataset:
        """The validation images, at the models' size."""
        size = self.first.size
        if size not in self.datasets:
            _, source = find_sources(self.data, size, self.cache)
            self.datasets[size] = load_images(source, size, self.cache, self.data.max_unreadable, CAN_TYPE)
        return self.datasets[size]

    def pick(self, asked: dict[str, Any], raw: bytes = b"") -> tuple[str, Tensor]:
        """A picture's name, and uint8 [3, S, S]: by index, by path, or its file's bytes."""
        size, second = self.first.size, bool(asked.get("second"))
        if raw:
            label, image = asked.get("name", "picture"), open_photo(raw, size, asked.get("name", ""))
        elif asked.get("path"):
            label, image = Path(asked["path"]).name, open_photo(asked["path"].strip(), size)
        else:
            index, images = int(asked.get("index", 0)), self.images
            if not 0 <= index < len(images):
                raise ConfigError(f"there is no image {index}: type 0 … {len(images) - 1}")
            label, image = f"original: {images.names[index]}", images.center_crops([index])[0]
        self.sources[second] = asked, raw
        return label, image

    def frames(self) -> list[Row]:
        """A row for each chosen model, and the linear code of equal bits."""
        key = hashlib.sha256(self.image.numpy().tobytes()).hexdigest(), ",".join(self.chosen)
        if key not in self.rows:
            made = [self.model(name).row(self.image) for name in self.chosen]
            line = self.first.line_to_beat(self.image)
            self.rows[key] = made + ([line] if line else [])
            while len(self.rows) > KEPT:
                self.rows.popitem(last=False)
        return self.rows[key]

    # ---- answers to the front end ----

    def _answer(self, _: Any, asked: dict[str, Any], buffers: list[Any]) -> None:
        try:
            getattr(self, f"_{asked['do']}")(asked, buffers)
        except (ConfigError, RunError, OSError) as error:
            self.send({"kind": "error", "text": str(error)})
        except KeyboardInterrupt:  # of the kernel
            self.send({"kind": "error", "text": "stopped: ask again"})
        except Exception as error:  # ours: it must not look like something that takes long
            self.send({"kind": "error", "text": f"this failed, which is a fault of tok1d: {error!r}"})
            raise

    def _start(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        self.send({"kind": "models", "choices": list(self.choices), "chosen": self.chosen})
        self._show()

    def _show(self) -> None:
        rows, self.other = self.frames(), None
        try:
            self.microscope = Microscope(self.first.largest, self.image)
            codebook = self.first.largest.quantizer.codebook_size
            tokens = dict(ids=self.microscope.ids, why=self.microscope.blind, codebook=codebook)
        except ConfigError as error:  # continuous tokens cannot be touched
            self.microscope, tokens = None, dict(ids=[], why=str(error), codebook=0)
        pictures = [self.image, *(frame for row in rows for frame in row.frames.values())]
        facts = {"label": self.label, "rows": [row.facts() for row in rows], "tokens": tokens}
        self.send({"kind": "frames"} | facts, [encoded(picture) for picture in pictures])

    def _open(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        label, image = self.pick(asked, bytes(buffers[0]) if buffers else b"")
        if asked.get("second"):
            self.other = other = Microscope(self.first.largest, image)
            self.send({"kind": "second", "ids": other.ids, "note": f"second image: {label}"})
        else:
            self.label, self.image = label, image
            self._show()

    def _models(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        before = self.chosen
        try:
            self._choose([name for name in asked["names"] if name in self.choices])
        except (ConfigError, RunError):
            self.chosen = before
            self.send({"kind": "models", "choices": list(self.choices), "chosen": before})
            raise

    def _choose(self, names: list[str]) -> None:
        if not names:
            raise ConfigError("no model is chosen: keep one")
        sizes = {self.model(name).size for name in names}
        if len(sizes) > 1:
            both = " and ".join(map(str, sorted(sizes)))
            raise ConfigError(f"these models take images of {both} pixels: choose models of one size")
        changed, self.chosen = sizes != {self.first.size}, names
        if changed:
            self.label, self.image = self.pick(*self.sources[False])
        self._show()

    def _add(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        where = asked["where"].strip()
        name = self.name_of(where)
        self.loaded[name] = Model(name, [where], self.lpips_checkpoint)
        self.choices[name] = [where]
        self._models({"names": [*dict.fromkeys((*self.chosen, name))]}, [])
        self.send({"kind": "models", "choices": list(self.choices), "chosen": self.chosen})

    # ---- tokens ----

    @property
    def touched(self) -> Microscope:
        if self.microscope is None:
            raise ConfigError(self.first.untouchable)
        return self.microscope

    def _decode(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        ids = [None if i is None else int(i) for i in asked["ids"]]
        self._edited(ids, lambda: self.touched.decode(ids))

    def _blend(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        share, other = float(asked["share"]), self.other
        if other is None:
            raise ConfigError("there is no second image: open one first")
        self._edited([], lambda: self.touched.blend(other.ids, share), f"{share:.0%} of the second image")

    def _edited(self, ids: list[int | None], make: Any, text: str = "") -> None:
        try:
            picture = make()
        except ConfigError as error:
            self.send({"kind": "error", "text": str(error)})
            picture, text = self.image.new_zeros(self.image.shape), str(error)
        changed = sum(a != b for a, b in zip(ids, self.touched.ids, strict=False))
        says = text or (f"{changed} of {len(ids)} tokens changed" if changed else "no token changed")
        self.send({"kind": "edited", "text": says}, [encoded(picture)])

    def _token(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        k, touched = int(asked["k"]), self.touched
        codes = touched.neighbors(k)
        maps = [heat(touched.effects([k])[0])] + ([] if touched.blind else [heat(touched.looks_at[k])])
        pictures = [encoded(picture) for picture in touched.with_code(k, codes)]
        text = f"token {k}: code {touched.ids[k]}; without it {-touched.lost([k])[0]:+.2f} dB"
        about = {"k": k, "codes": codes, "looks": not touched.blind, "text": text}
        self.send({"kind": "token"} | about, [*map(encoded, maps), *pictures])

    def _table(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        self.measuring = asyncio.get_running_loop().create_task(self._effects(self.touched))

    async def _effects(self, touched: Microscope) -> None:
        """A few tokens at a time, so that edits are answered between them."""
        K = len(touched)
        for start in range(0, K, FEW) if K > 1 else ():
            touched.without(range(start, min(start + FEW, K)))
            await asyncio.sleep(HEAR)
            if touched is not self.microscope:  # another picture was opened
                return
        shares = [row["effect"] for row in touched.table()] if K > 1 else [1.0]
        self.send({"kind": "table", "effects": shares})

    # ---- fewest tokens, and holes ----

    def _fewest(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        wished = float(asked["psnr"])
        count = fewest_tokens(self.first.largest, self.image, psnr=wished)
        text = (
            f"{count} tokens"
            if count
            else f"not even with {self.first.largest.config.num_latent_tokens} tokens"
        )
        self.send({"kind": "fewest", "count": count, "text": text})

    def _fill(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        left, top, width, height = (float(x) / 100 for x in asked["hole"])
        S = self.image.shape[-1]
        hole = torch.zeros(S, S, dtype=torch.bool)
        hole[round(top * S) : round((top + height) * S), round(left * S) : round((left + width) * S)] = True
        if not hole.any() or hole.all():
            raise ConfigError("the hole is empty or everything: type a width and height of 1 … 99 %")
        self._begin(inpaint(self.first.largest, self.image, hole))

    def _resemble(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        if self.other is None:
            raise ConfigError("there is no second image: open one in the microscope first")
        self._begin(resemble(self.first.largest, self.image, self.other.image))

    def _begin(self, edits: Iterator[Edit]) -> None:
        if self.filling:
            self.filling.cancel()
        self.stopped = False
        self.filling = asyncio.get_running_loop().create_task(self._make(edits))

    async def _make(self, edits: Iterator[Edit]) -> None:
        """Step by step, so that other messages, such as stop, are heard between them."""
        try:
            for last in edits:
                share = last.step / last.steps
                self._send_filled(last, f"step {last.step} of {last.steps}", share, done=False)
                await asyncio.sleep(HEAR)
                if self.stopped:
                    break
            self._send_filled(last, f"made in {last.step} steps", 1.0, done=True)
        except ConfigError as error:
            self.send({"kind": "error", "text": str(error)})

    def _send_filled(self, state: Edit, text: str, share: float, done: bool) -> None:
        self.send({"kind": "filled", "text": text, "share": share, "done": done}, [encoded(state.image)])

    def _stop(self, asked: dict[str, Any], buffers: list[Any]) -> None:
        self.stopped = True

    # ---- without a kernel ----

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        data, metadata = found if isinstance(found, tuple) else (found, {})
        return (data or {}) | {"text/html": self.to_html()}, metadata

    def to_html(self) -> str:
        """The slider over the present picture, which needs no kernel."""
        first, *others = [row for row in self.frames() if list(row.frames) == list(self.frames()[0].frames)]
        shown = {row.name: {k: frame[None] for k, frame in row.frames.items()} for row in (first, *others)}
        captions = {k: caption(first, i) for i, k in enumerate(first.frames)}
        mine = shown.pop(first.name)
        names = (self.label, first.name)
        return TokenSlider(self.image[None], mine, captions, others=shown, names=names).to_html()
