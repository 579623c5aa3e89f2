"""Peers, runs of ours, image codecs and a linear code side by side: the rows of one table, by bits.

All are measured on the same images, under the same card. A codec is at the best of its settings that takes no
more bits than the richest of the tokenizers, or at its smallest files if none is as small.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from tok1d.config.schema import DataConfig, EvalConfig
from tok1d.data.dataset import ImageDataset, to_uint8
from tok1d.evaluation.evaluate import evaluate
from tok1d.evaluation.measured import LinearCode
from tok1d.evaluation.peers import REPORT
from tok1d.evaluation.runs import fit_linear_code
from tok1d.figures.quality import LINEAR
from tok1d.figures.rate_distortion import CODECS, PILLOW, codec_points, envelope, from_file, to_file
from tok1d.runs import Run

TRIED = 8  # images on which a codec's setting is chosen
STORED = 2**13  # bits an image; more are continuous codes, which nobody would store


class Codec:
    """An image codec at one setting, measured like any foreign tokenizer."""

    def __init__(self, name: str, shrink: int, quality: int):
        self.format, self.shrink, self.quality = name, shrink, quality
        self.name = f"{name}, quality {quality}" + (f", 1/{shrink} size" if shrink > 1 else "")

    def encode(self, images: Tensor) -> list[bytes]:
        """float [B, 3, H, W] in 0 … 1 -> a file of each."""
        self.size = images.shape[-1], images.shape[-2]
        pictures = [Image.fromarray(pixels) for pixels in to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()]
        return [to_file(p, self.shrink, self.quality, CODECS[self.format]) for p in pictures]

    def decode(self, files: list[bytes]) -> Tensor:
        pixels = np.stack([from_file(file, self.size) for file in files])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255


def budgets(runs: list[Run]) -> list[int]:
    """The bits an image of these runs' token counts, whole ones, ascending."""
    bits = {round(row["bits"]) for run in runs for row in run.evaluation["results"] if "bits" in row}
    return sorted(each for each in bits if each <= STORED)


def line_at(runs: list[Run], fit_data: str, size: int) -> LinearCode | None:
    """A linear code at the bits of these runs, fitted to the training images of `fit_data`; None without."""
    bits = tuple(budgets(runs))
    if not (fit_data and bits):
        return None
    return fit_linear_code(DataConfig(data=fit_data), size, bits, 1.0, runs[0].cache)


def codecs_for(runs: list[Run], images: ImageDataset) -> list[Codec]:
    """Each codec that this machine has, at the setting for these runs."""
    few, most = images.center_crops(images.evenly_spaced(TRIED)), max(budgets(runs), default=STORED) / 8
    found = []
    for name in CODECS:
        if features.check(PILLOW[name]):
            points = envelope(codec_points(few, name))
            best = [p for p in points if p["bytes"] <= most][-1:] or points[:1]
            found.append(Codec(name, best[0]["shrink"], best[0]["quality"]))
    return found


def side_by_side(
    runs: list[Run], images: ImageDataset, config: EvalConfig, line: LinearCode | None
) -> list[dict[str, Any]]:
    """Rows for `show_table`, by bits: peers and runs as they were evaluated on `images`, the codecs and the
    linear code measured now.
    """
    rows = [{"tokenizer": run.name} | row for run in runs for row in run.evaluation["results"]]
    plain = config.model_copy(update={"token_counts": ()})
    for codec in codecs_for(runs, images):
        rows += [{"tokenizer": codec.name} | row for row in evaluate(codec, images, plain)["results"]]
    if line:
        found = evaluate(line, images, plain)["results"]
        rows += [{"tokenizer": LINEAR} | row | {"num_tokens": None} for row in found]
    return sorted(rows, key=lambda row: row.get("bits", math.inf))


def bridges(runs: list[Run]) -> list[dict[str, Any]]:
    """Rows for `show_table`: what the bridge report of each peer says."""
    rows = []
    for run in runs:
        if run.kind == "peer":
            report = json.loads((run / REPORT).read_text(encoding="utf-8"))
            tensors = Counter(row["status"] for row in report["tensors"])
            rows.append({
                "tokenizer": run.name, "format": report["format"], "license": report["license"],
                "tensors": ", ".join(f"{count} {status}" for status, count in tensors.items()),
                "input range": report["input_range"], "pixels": report["decoder"],
                "self-test (dB)": f"{report['self_test']['psnr']:.2f}",
                "what a token looks at": report["unexplained"] or "can be asked",
            })  # fmt: skip
    return rows
