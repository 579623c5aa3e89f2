"""What the tokens of a run are: which codes it uses, at which positions, for which images, to what effect.

Tokens of a 1D tokenizer lie on no grid, so a map of ids over the image would mean nothing. Instead: a matrix
of ids with an image a row and a position a column, and for a position the part of the image that changes when
its token is another image's.
"""

from __future__ import annotations

import math

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.data.dataset import ImageDataset
from tok1d.evaluation.metrics.tokens import effects, frequent_pairs
from tok1d.figures.images import channels_last
from tok1d.figures.style import COLORS, COLUMN, HALO, STYLE, Drawn
from tok1d.models.quantizers import NO_IDS
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run

CYCLE = 61  # colors of the id matrix: neighboring ids look different, equal ones alike


def usage_histogram(run: Run, ids: Tensor, codebook_size: int) -> tuple[Figure, Drawn]:
    """How often each code is used, the most frequent first; unused ones are left out."""
    counts = torch.bincount(ids.flatten(), minlength=codebook_size).sort(descending=True).values
    used = counts[counts > 0].numpy()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.2), layout="constrained")
        axis = figure.subplots()
        axis.loglog(np.arange(1, len(used) + 1), used / ids.numel(), color=COLORS[0])
        fair = 1 / codebook_size
        axis.axhline(fair, color="#999", linewidth=0.8, linestyle=":")
        axis.text(1, fair, "all alike", va="bottom", fontsize=7, color="#666")
        axis.set_xlabel(f"code, by rank ({len(used):,} of {codebook_size:,} are used)")
        axis.set_ylabel("share of tokens")
    keys = ("rank", "share")
    shares = (used / ids.numel()).tolist()
    return figure, [{"run": str(run.path)} | dict(zip(keys, p, strict=True)) for p in enumerate(shares, 1)]


def positions(run: Run) -> tuple[Figure, Drawn]:
    """Entropy of each token position over the evaluated images, and the most that so many images allow."""
    evaluation = run.evaluation
    found = evaluation["positions"]
    if not found:
        raise ConfigError(NO_IDS)
    entropy = found[max(found, key=int)]["entropy"]
    most = math.log2(evaluation["card"]["images"])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN, 2.0), layout="constrained")
        axis = figure.subplots()
        axis.plot(range(1, len(entropy) + 1), entropy, "o-", color=COLORS[0], markersize=2.5)
        axis.axhline(most, color="#999", linewidth=0.8, linestyle=":")
        axis.text(1, most, "every image another code", va="bottom", fontsize=7, color="#666")
        axis.set_ylim(0, 1.15 * max(most, *entropy))
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axis.set_xlabel("token position")
        axis.set_ylabel("entropy (bits)")
    return figure, [{"run": str(run.path), "position": i, "entropy": e} for i, e in enumerate(entropy, 1)]


def id_matrix(run: Run, ids: Tensor, count: int = 40) -> tuple[Figure, Drawn]:
    """Ids as colors, an image a row, a position a column: a column of one color says little."""
    shown = ids[:count]
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(COLUMN, 2.4), layout="constrained")
        axis = figure.subplots()
        axis.imshow(
            shown * 37 % CYCLE,
            cmap="nipy_spectral",
            aspect="auto",
            interpolation="nearest",
            extent=(0.5, ids.shape[1] + 0.5, len(shown), 0),
        )
        axis.set_xlabel("token position")
        axis.set_ylabel("image")
    return figure, [{"run": str(run.path), "image": i, "ids": row} for i, row in enumerate(shown.tolist())]


def effect_maps(run: Run, tokenizer: Tokenizer, images: Tensor) -> tuple[Figure, Drawn]:
    """`effects` of some positions, from the first to the last, a column each, under the images."""
    K = tokenizer.config.num_latent_tokens
    shown = sorted({round(x) - 1 for x in np.geomspace(1, K, min(6, K))})
    maps = effects(tokenizer, images, shown)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(0.8 * (len(shown) + 1), 0.8 * len(images) + 0.2), layout="constrained")
        axes = figure.subplots(len(images), len(shown) + 1, squeeze=False)
        for row, picture in zip(axes, channels_last(images), strict=True):
            row[0].imshow(picture)
        for column, (k, maps_of_k) in enumerate(zip(shown, maps, strict=True), 1):
            axes[0, column].set_title(f"token {k + 1}", path_effects=HALO)
            for axis, change in zip(axes[:, column], maps_of_k, strict=True):
                axis.imshow(change, cmap="magma", vmin=0, vmax=float(maps.max()) or 1.0)
        for axis in axes.flat:
            axis.axis("off")
    means = maps.mean((1, 2, 3)).tolist()
    return figure, [
        {"run": str(run.path), "position": k + 1, "change": c} for k, c in zip(shown, means, strict=True)
    ]


def images_of_codes(
    run: Run, ids: Tensor, images: ImageDataset, codes: int = 5, per_code: int = 6
) -> tuple[Figure, Drawn]:
    """The images behind codes: for frequent pairs of position and code, a row of images that share it."""
    drawn, rows = [], []
    for position, code in frequent_pairs(ids, codes):
        own = (ids[:, position] == code).nonzero().flatten()[:per_code].tolist()
        drawn.append({"run": str(run.path), "position": position + 1, "code": code, "images": own})
        rows.append(channels_last(images.center_crops(own)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.8 * per_code + 0.9, 0.8 * len(rows)))
        axes = figure.subplots(len(rows), per_code, squeeze=False)
        figure.subplots_adjust(0.9 / (0.8 * per_code + 0.9), 0, 1, 1, 0.04, 0.04)
        for axis in axes.flat:
            axis.axis("off")
        for line, pictures, what in zip(axes, rows, drawn, strict=True):
            line[0].text(
                -0.08, 0.5, f"token {what['position']}\n= {what['code']}", transform=line[0].transAxes,
                ha="right", va="center", fontsize=7, path_effects=HALO,
            )  # fmt: skip
            for axis, picture in zip(line, pictures, strict=False):
                axis.imshow(picture)
    return figure, drawn
