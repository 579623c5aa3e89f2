"""How much silent choices move rFID: one codec, measured as tok1d does it and in ten other ways.

python -m benchmarks.silent_choices FRAMES TRAIN [inception_checkpoint=PATH] [images=400]     a Markdown table

FRAMES and TRAIN are folders of photographs, of which `images` each are taken, spread evenly. The codec is
JPEG of quality 20 whose decoder stops before rounding: like a neural decoder's its values are fractions, and
overshoot 0 … 1. Every way has a card of its own; the last column names what differs on it.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import ImageDataset, to_float, to_uint8
from tok1d.data.decode import SUFFIXES, read_image, resize
from tok1d.evaluation.card import differences
from tok1d.evaluation.evaluate import UINT8, Saving, evaluate

SIZE, QUALITY = 256, 20
TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


class FloatJpeg:
    """JPEG with its chroma at half the size, as libjpeg has it, up to the rounding of the last step."""

    name = f"JPEG of quality {QUALITY}, decoded in floating point"

    def __init__(self):
        out = io.BytesIO()
        Image.new("RGB", (16, 16)).save(out, "JPEG", quality=QUALITY)
        steps = Image.open(out).quantization  # type: ignore[attr-defined]  # of JPEG files, in rows
        self.steps = [torch.tensor(steps[i], dtype=torch.float32).view(8, 8) for i in (0, 1)]
        k, n = torch.arange(8.0)[:, None], torch.arange(8.0)
        self.dct = torch.cos((2 * n + 1) * k * torch.pi / 16) / 2 * torch.where(k == 0, 0.5**0.5, 1.0)

    def encode(self, images: Tensor) -> list[Tensor]:
        ycc = torch.einsum("dc,bchw->bdhw", TO_YCC, images * 255)
        planes = [ycc[:, :1] - 128, F.avg_pool2d(ycc[:, 1:], 2)]
        return [self.coefficients(x, step) for x, step in zip(planes, self.steps, strict=True)]

    def coefficients(self, x: Tensor, step: Tensor) -> Tensor:
        """[B, C, H, W] -> rounded [B, C, H / 8, W / 8, 8, 8]."""
        blocks = x.unfold(2, 8, 8).unfold(3, 8, 8)
        return (self.dct @ blocks @ self.dct.T / step).round()

    def decode(self, coefficients: list[Tensor]) -> Tensor:
        luma, chroma = (
            (self.dct.T @ (c * step) @ self.dct).transpose(3, 4).flatten(4).flatten(2, 3)
            for c, step in zip(coefficients, self.steps, strict=True)
        )
        chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")
        return torch.einsum("dc,bchw->bdhw", TO_YCC.inverse(), torch.cat([luma + 128, chroma], 1)) / 255


@dataclass(frozen=True)
class Photographs(ImageDataset):
    """The photographs of a folder, made square by any rule."""

    folder: Path
    make: Callable[[np.ndarray], np.ndarray]
    rule: str = ImageDataset.rule

    def __getitem__(self, i: int) -> np.ndarray:
        return self.make(np.array(read_image(self.folder / self.names[i])[0]))

    def by(self, rule: str, make: Callable[[np.ndarray], np.ndarray]) -> Photographs:
        return replace(self, rule=rule, make=make)


def photographs(folder: str, count: int = 0) -> Photographs:
    """The images of a folder, or `count` of them, spread evenly over their names."""
    names = sorted(path.name for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if 0 < count < len(names):
        names = [names[i * len(names) // count] for i in range(count)]
    return Photographs(
        SIZE, names, None, f"{Path(folder).name}, {len(names)} files", {}, Path(folder), by_our_rule
    )


def by_our_rule(picture: np.ndarray) -> np.ndarray:
    return resize(picture, SIZE)


def larger(picture: np.ndarray) -> np.ndarray:
    return resize(picture, SIZE * 8 // 7)


def squashed(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def bilinear(picture: np.ndarray) -> np.ndarray:
    h, w = (round(SIZE * side / min(picture.shape[:2])) for side in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((w, h), Image.Resampling.BILINEAR))


def aliased(picture: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, scale_factor=SIZE / min(picture.shape[:2]), mode="bicubic")
    return x[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()


def as_jpeg(picture: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=95)
    return np.asarray(Image.open(out))


def in_jpeg_files(output: Tensor) -> Tensor:
    files = [as_jpeg(image) for image in to_uint8(output).permute(0, 2, 3, 1).numpy()]
    return torch.from_numpy(np.stack(files)).permute(0, 3, 1, 2)


def ways(frames: Photographs, train: Photographs) -> Iterator[tuple[str, Photographs, dict]]:
    """What is done differently, the images, and arguments of `evaluate`."""
    yield "as tok1d does it", frames, {}
    yield "half of the images", frames, {"eval_images": len(frames) // 2}
    yield "statistics of training images", frames, {"reference": train}
    yield "shorter side to 292, then cropped", frames.by("shorter side to 8/7, center crop", larger), {}
    yield "squashed instead of cropped", frames.by("squashed, antialiased bicubic", squashed), {}
    yield "antialiased bilinear", frames.by("shorter side, antialiased bilinear, center crop", bilinear), {}
    yield "bicubic, not antialiased", frames.by("shorter side, aliased bicubic, center crop", aliased), {}
    kept = frames.by("ours, then JPEG files of quality 95", lambda picture: as_jpeg(by_our_rule(picture)))
    yield "originals kept as JPEG, quality 95", kept, {}
    for what, saving in {
        "reconstructions saved as JPEG, 95": Saving("JPEG files of quality 95", in_jpeg_files),
        "truncated instead of rounded": Saving(
            "clamped, truncated to uint8", lambda x: (x.clamp(0, 1) * 255).to(torch.uint8)
        ),
        "clamped too late: values wrap around": Saving(
            "rounded to uint8, not clamped", lambda x: ((x * 255).round().long() % 256).to(torch.uint8)
        ),
    }.items():
        yield what, frames, {"saving": saving}


def main(folder: str, train: str, *arguments: str) -> None:
    values = dict(argument.split("=", 1) for argument in arguments)
    count = int(values.pop("images", 400))
    config = EvalConfig(metrics="rfid", resamples=0, eval_batch_size=20, **values)
    print("| evaluated | rFID | moved by | on the card |\n|---|---:|---:|---|", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        base = None
        for what, images, extra in ways(photographs(folder, count), photographs(train, count)):
            own = config.model_copy(update={"eval_images": extra.pop("eval_images", 0)})
            choices = {"saving": UINT8, "cache": Path(cache)} | extra
            found = evaluate(FloatJpeg(), images, own, **choices)
            rfid, card = found["results"][0]["rfid"], found["card"]
            base = base or (rfid, card)
            named = next(iter(differences(base[1], card)), "")
            moved = f"{rfid - base[0]:+.1f}" if named else ""
            print(f"| {what} | {rfid:.1f} | {moved} | {named.split('.')[-1]} |", flush=True)


def check() -> float:
    """How far the floating-point codec is from Pillow's JPEG, in levels: mean over a toy road."""
    from tok1d.data.toy_roads.draw import draw_scene

    picture = np.asarray(draw_scene(0, SIZE))
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=QUALITY)
    codec, image = FloatJpeg(), torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
    ours = to_uint8(codec.decode(codec.encode(to_float(image))))[0].permute(1, 2, 0).numpy()
    return float(np.abs(ours.astype(int) - np.asarray(Image.open(out)).astype(int)).mean())


if __name__ == "__main__":
    main(*sys.argv[1:])
