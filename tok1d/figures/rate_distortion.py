"""Tokens against JPEG, WebP, AVIF and a linear code: quality at equal bytes, of the same images, in one plot.

A codec may shrink an image before it encodes it, by 1, 2, 4 or 8. Its files count whole, headers too: that
is what storing the image takes. Of small images JPEG's and AVIF's are headers mostly, so a second line leaves
out whatever is not coded pixels, even tables that are needed to read them. Tokens are counted as their bits.

PyTorch is imported where pixels are measured, so that a notebook that draws numbers alone starts at once.
"""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, features

from tok1d.config.fields import ConfigError
from tok1d.config.schema import TokenizerConfig
from tok1d.evaluation.card import card_id, protocol, same_card
from tok1d.figures.quality import LINE_TO_BEAT
from tok1d.figures.series import LINEAR, counts_of, series_of
from tok1d.figures.style import COLUMN, STYLE, Drawn, End, label_ends, look
from tok1d.runs import Lacking, Run

if TYPE_CHECKING:
    from torch import Tensor

    from tok1d.data.dataset import ImageDataset
    from tok1d.evaluation.measured import LinearCode

CODECS = {
    "JPEG": {"format": "JPEG", "optimize": True},
    "WebP": {"format": "WEBP", "method": 4},
    "AVIF": {"format": "AVIF", "speed": 8},
}
PILLOW = {"JPEG": "jpg", "WebP": "webp", "AVIF": "avif"}  # what it calls them; AVIF is in recent ones only
GREYS = {"JPEG": "#888888", "WebP": "#666666", "AVIF": "#333333"}
DASHES = {"JPEG": ":", "WebP": "--", "AVIF": "-"}
BARE = {"JPEG": "JPEG, no headers", "AVIF": "AVIF, no headers"}  # their lines without headers
QUALITIES = (1, 5, 15, 30, 50, 70, 90)
SHRINKS = (8, 4, 2, 1)
SMALLEST = 8  # pixels; no codec is asked for a smaller image


def of_runs(runs: list[Run]) -> Drawn:
    """`rate_distortion` of the series with most token counts, three at most; others are named on the screen.

    Raises `ConfigError` if the evaluated images are not on this machine, `Lacking` for a run without PSNR.
    """
    from tok1d.evaluation.runs import images_behind

    series = sorted(series_of(runs), key=lambda each: -len(counts_of(each.runs)))
    if series[3:]:
        print(f"not in the figure of rate and distortion: {', '.join(each.label for each in series[3:])}")
    few = [run for each in series[:3] for run in each.runs]
    return rate_distortion(few, images_behind(few[0], few[0].params["image_size"]))


def rate_distortion(
    runs: list[Run], images: ImageDataset, count: int = 24, line: LinearCode | None = None
) -> Drawn:
    """PSNR against bytes an image: the runs' token counts, and each codec's best settings.

    `images` are those of the runs' evaluations; `count` of them, spread evenly, are measured. A line starts
    at the smallest files that its codec can make. A point of tokens has `equal_bytes`: the PSNR of each codec
    at as many bytes, None where it has no file as small. `line` is a linear code, if not of a run. Raises
    `RunError` if cards differ, `ConfigError` if `images` are others.
    """
    same_card(runs, "psnr")
    card = protocol(runs[0].evaluation["card"], "psnr")
    if images.fingerprint != card["data_fingerprint"]:
        raise ConfigError(
            f"the images that {runs[0].path} was evaluated on have changed: "
            f"evaluate it again with '{runs[0].to_evaluate}'"
        )
    measured = min(card["images"], len(images))
    chosen = np.unique(np.linspace(0, measured - 1, min(count, measured)).round().astype(int)).tolist()
    originals = images.center_crops(chosen)
    codecs = {}
    for name in CODECS:
        if features.check(PILLOW[name]):
            points = codec_points(originals, name)
            codecs[name] = envelope(points)
            if name in BARE:
                codecs[BARE[name]] = envelope([p | {"bytes": p["payload"]} for p in points])
    measured = {"card": card_id(card), "images": len(chosen)}
    drawn = []
    for label, members in series_of(runs):
        for run in members:
            for point in tokens_of(run, chosen):
                equal = {name: at(points, point["bytes"]) for name, points in codecs.items()}
                where = {"series": label, "line": "tokens", "run": str(run.path)}
                drawn.append(where | measured | point | {"equal_bytes": equal})
    lines = codecs | {LINEAR: linear_points(runs, originals, line)}
    return drawn + [{"series": n, "line": n} | measured | p for n, points in lines.items() for p in points]


def draw_rate_distortion(drawn: Drawn) -> Figure:
    ends = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.4), layout="constrained")
        axis = figure.subplots()
        for i, label in enumerate(dict.fromkeys(d["series"] for d in drawn)):
            points: dict[float, list[float]] = {}  # of each size, the seeds
            for d in sorted((d for d in drawn if d["series"] == label), key=lambda d: d["bytes"]):
                points.setdefault(d["bytes"], []).append(d["psnr"])
            x, y = list(points), [float(np.mean(values)) for values in points.values()]
            style: dict[str, Any] = look(i)
            if label in CODECS:
                style = {"color": GREYS[label], "linestyle": DASHES[label]}
            elif label in BARE.values():
                name = next(name for name, bare in BARE.items() if bare == label)
                style = {"color": GREYS[name], "linestyle": DASHES[name], "linewidth": 0.6}
            elif label == LINEAR:
                style = LINE_TO_BEAT
            axis.plot(x, y, **style)
            ends.append(End(label, x[-1], y[-1], style["color"]))
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_xlabel("bytes per image")
        axis.set_ylabel("PSNR (dB)")
        label_ends(axis, ends, inside=0.6)
    return figure


def tokens_of(run: Run, chosen: list[int]) -> list[dict[str, Any]]:
    """Mean bytes and PSNR of these images at each token count of the run's evaluation."""
    from tok1d.evaluation.table import read_table, table_of

    evaluation, points = run.evaluation, []
    for row in evaluation["results"]:
        if "bits" not in row:  # a peer of continuous codes that counts none
            continue
        if "psnr" not in row:
            raise Lacking(f"{run.path} was evaluated without psnr: '{run.to_evaluate}' measures it")
        quality = row["psnr"]
        if len(chosen) < evaluation["card"]["images"]:
            rows = read_table(table_of(run), row["num_tokens"], ["psnr"])
            quality = float(rows[rows["image"].isin(chosen)]["psnr"].mean())
        points.append({"num_tokens": row["num_tokens"], "bytes": row["bits"] / 8, "psnr": quality})
    return points


def linear_points(runs: list[Run], originals: Tensor, line: LinearCode | None) -> list[dict[str, Any]]:
    """uint8 [N, 3, H, W] -> bytes and PSNR of a linear code, by itself that beside the run of ours with most
    tokens; [] without.
    """
    from tok1d.data.dataset import to_float
    from tok1d.evaluation.evaluate import reconstruct
    from tok1d.evaluation.metrics.images import psnr
    from tok1d.evaluation.runs import linear_code

    runs = [run for run in runs if run.kind != "peer"]
    if line is None and runs:
        run = max(runs, key=lambda run: max(row["bits"] for row in run.evaluation["results"]))
        line = linear_code(run, run.config(TokenizerConfig))
    if line is None:
        return []
    restored = reconstruct(line, originals, line.token_counts)
    return [
        {
            "num_tokens": count, "bytes": count * line.bits_per_token / 8,
            "psnr": psnr(to_float(restored[count]), to_float(originals)).mean().item(),
        }
        for count in line.token_counts
    ]  # fmt: skip


def codec_points(originals: Tensor, name: str) -> list[dict[str, Any]]:
    """uint8 [N, 3, H, W] -> mean bytes and PSNR of every setting of a codec."""
    import torch

    from tok1d.data.dataset import to_float
    from tok1d.evaluation.metrics.images import psnr

    points = []
    pictures = [Image.fromarray(image) for image in originals.permute(0, 2, 3, 1).numpy()]
    for shrink in SHRINKS:
        if pictures[0].width // shrink < SMALLEST:
            continue
        for quality in QUALITIES:
            coded = [code(picture, shrink, quality, CODECS[name]) for picture in pictures]
            restored = torch.from_numpy(np.stack([pixels for pixels, _ in coded])).permute(0, 3, 1, 2)
            points.append({
                "shrink": shrink, "quality": quality,
                "bytes": float(np.mean([len(file) for _, file in coded])),
                "payload": float(np.mean([payload(file) for _, file in coded])),
                "psnr": psnr(to_float(restored), to_float(originals)).mean().item(),
            })  # fmt: skip
    return points


def code(
    picture: Image.Image, shrink: int, quality: int, options: dict[str, Any]
) -> tuple[np.ndarray, bytes]:
    """A picture through a file of a codec: uint8 [H, W, 3], and the file."""
    file = to_file(picture, shrink, quality, options)
    return from_file(file, picture.size), file


def to_file(picture: Image.Image, shrink: int, quality: int, options: dict[str, Any]) -> bytes:
    small = picture.resize((picture.width // shrink, picture.height // shrink), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, quality=quality, **options)
    return file.getvalue()


def from_file(file: bytes, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3]; `size` is width and height."""
    decoded = Image.open(io.BytesIO(file)).convert("RGB")
    return np.asarray(decoded.resize(size, Image.Resampling.BICUBIC))


def payload(file: bytes) -> int:
    """How many bytes of a file are coded pixels: of a JPEG what follows each start of scan, of an AVIF its
    boxes of media data; of others all.
    """
    if file[:2] == b"\xff\xd8":
        at, total = 2, 0
        while at + 4 <= len(file) and file[at + 1] != 0xD9:  # end of image
            scan, at = file[at + 1] == 0xDA, at + 2 + int.from_bytes(file[at + 2 : at + 4])
            if scan:
                end = re.compile(rb"\xff[^\x00\xd0-\xd7]").search(file, at)  # a marker, none inside of a scan
                end_at = end.start() if end else len(file)
                total, at = total + end_at - at, end_at
        return total
    if file[4:8] == b"ftyp":
        at, total = 0, 0
        while at + 8 <= len(file):
            size = int.from_bytes(file[at : at + 4]) or len(file) - at
            total, at = total + (size - 8) * (file[at + 4 : at + 8] == b"mdat"), at + size
        return total
    return len(file)


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
