"""Tokens against JPEG, WebP and AVIF: quality at equal bytes, of the same images, in one plot.

A codec may shrink an image before it encodes it, by 1, 2, 4 or 8, and its files count whole, headers too:
that is what storing the image takes. Tokens are counted as their bits.
"""

from __future__ import annotations

import io
import math
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, features
from torch import Tensor

from tok1d.data import Images, to_float
from tok1d.eval_table import read_table
from tok1d.figures import COLOURS, COLUMN, STYLE
from tok1d.image_metrics import psnr
from tok1d.runs import Run

CODECS = {
    "JPEG": {"format": "JPEG", "optimize": True},
    "WebP": {"format": "WEBP", "method": 4},
    "AVIF": {"format": "AVIF", "speed": 8},
}
QUALITIES = (1, 5, 15, 30, 50, 70, 90)
SHRINKS = (8, 4, 2, 1)
SMALLEST = 8  # pixels; no codec is asked for a smaller image


def rate_distortion(run: Run, images: Images, count: int = 24) -> tuple[Figure, list[dict[str, Any]]]:
    """PSNR against bytes an image: a run's token counts, and each codec's best settings.

    `images` are those of the run's evaluation; `count` of them, spread evenly, are measured. A line starts at
    the smallest files that its codec can make. Returns what is drawn, with `equal_bytes` for each token
    count: the PSNR of each codec at as many bytes, None where it has no file as small.
    """
    measured = min(run.evaluation["card"]["images"], len(images))
    chosen = np.unique(np.linspace(0, measured - 1, min(count, measured)).round().astype(int)).tolist()
    lines = {"tokens": tokens_of(run, chosen)}
    originals = images.centre(chosen)
    for name in CODECS:
        if features.check({"JPEG": "jpg"}.get(name, name.lower())):  # AVIF is in recent Pillows only
            lines[name] = envelope(codec_points(originals, name))
    for point in lines["tokens"]:
        point["equal_bytes"] = {n: at(points, point["bytes"]) for n, points in lines.items() if n != "tokens"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.4), layout="constrained")
        axis = figure.subplots()
        for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
            label = run.name if name == "tokens" else name
            x, y = [p["bytes"] for p in points], [p["psnr"] for p in points]
            axis.plot(x, y, "o-" if name == "tokens" else "-", color=colour, markersize=3.5, label=label)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_xlabel("bytes per image")
        axis.set_ylabel("PSNR (dB)")
        axis.legend()
    return figure, [
        {"run": str(run.path), "line": n} | point for n, points in lines.items() for point in points
    ]


def tokens_of(run: Run, chosen: list[int]) -> list[dict[str, Any]]:
    """Mean bytes and PSNR of these images at each token count of the run's evaluation."""
    points = []
    for row in run.evaluation["results"]:
        rows = read_table(run / "eval.parquet", row["num_tokens"], ["psnr"])
        own = rows[rows["image"].isin(chosen)]
        points.append(
            {"num_tokens": row["num_tokens"], "bytes": row["bits"] / 8, "psnr": float(own["psnr"].mean())}
        )
    return points


def codec_points(originals: Tensor, name: str) -> list[dict[str, Any]]:
    """uint8 [N, 3, H, W] -> mean bytes and PSNR of every setting of a codec."""
    points = []
    pictures = [Image.fromarray(image) for image in originals.permute(0, 2, 3, 1).numpy()]
    for shrink in SHRINKS:
        if pictures[0].width // shrink < SMALLEST:
            continue
        for quality in QUALITIES:
            coded = [code(picture, shrink, quality, CODECS[name]) for picture in pictures]
            restored = torch.from_numpy(np.stack([pixels for pixels, _ in coded])).permute(0, 3, 1, 2)
            points.append({
                "shrink": shrink, "quality": quality, "bytes": float(np.mean([size for _, size in coded])),
                "psnr": psnr(to_float(restored), to_float(originals)).mean().item(),
            })  # fmt: skip
    return points


def code(picture: Image.Image, shrink: int, quality: int, options: dict[str, Any]) -> tuple[np.ndarray, int]:
    """A picture through a file of a codec: uint8 [H, W, 3], and the file's bytes."""
    small = picture.resize((picture.width // shrink, picture.height // shrink), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, quality=quality, **options)
    decoded = Image.open(file).convert("RGB").resize(picture.size, Image.Resampling.BICUBIC)
    return np.asarray(decoded), len(file.getvalue())


def envelope(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings that no other beats with fewer bytes, by bytes."""
    best: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["bytes"], -p["psnr"])):
        if not best or point["psnr"] > best[-1]["psnr"]:
            best.append(point)
    return best


def at(points: list[dict[str, Any]], size: float) -> float | None:
    """The PSNR of a line at so many bytes, None where it does not reach."""
    x = [math.log(point["bytes"]) for point in points]
    if not x[0] <= math.log(size) <= x[-1]:
        return None
    return float(np.interp(math.log(size), x, [point["psnr"] for point in points]))
