"""How an elastic tokenizer should start:  python -m benchmarks.elastic_schedules [NAME=VALUE …]

Trains the nano tokenizer at 64 px with each schedule below, with and without `token_mixing`, and measures it
on one batch of validation images all along, with 1, 8 and all K tokens. Any parameter of the train notebook
may be given (`data=FOLDER`, `steps=600`), and `seeds=2`, and where the figure goes, without an ending:
`out=outputs/published/elastic-schedules`. One process a core: with the defaults about seven minutes on two.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor
from tqdm import tqdm

from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse_train
from tok1d.config.schema import TokenizerConfig, TrainConfig
from tok1d.data.dataset import ImageDataset, load_data, to_float
from tok1d.figures.draw import save
from tok1d.figures.images import tokens
from tok1d.figures.style import COLORS, STYLE
from tok1d.models.tokenizer import Tokenizer
from tok1d.training.optim import build_optimizers, set_learning_rate
from tok1d.training.task import sample_num_tokens, tokenizer_groups

DEFAULTS = dict(
    image_size=64, encoder="vit", patch_size=16, num_latent_tokens=32,
    elastic=True, toy_images=1000, toy_val_images=64, steps=300, batch_size=16, optimizer="muon",
    warmup_steps=30,
)  # fmt: skip
POINTS = 30  # measurements along a run
GONE = 0.9  # of the mean image's error: below that, images are told apart


class Schedule(NamedTuple):
    """How many tokens a step keeps: all K for the first `share` of the steps, then prefixes."""

    label: str
    share: float
    prefixes: str = (
        "powers"  # 1, 2, 4 … K; or uniform: 1 … K; or half: powers, but all K in half of the steps
    )

    def count(  # type: ignore[override]  # hides the method of tuples
        self, step: int, tokenizer: TokenizerConfig, train: TrainConfig
    ) -> int:
        count = sample_num_tokens(
            step, tokenizer, train.model_copy(update={"elastic_warmup_fraction": self.share})
        )
        rng, K = np.random.default_rng((train.seed, 3, step)), tokenizer.num_latent_tokens
        if self.prefixes == "powers" or step < self.share * train.steps:
            return count
        if self.prefixes == "uniform":
            return int(rng.integers(1, K + 1))
        return K if rng.random() < 0.5 else count


SCHEDULES = [
    Schedule("at step 0", 0.0),
    Schedule("after 10 %", 0.1),
    Schedule("after 20 %", 0.2),
    Schedule("after 40 %", 0.4),
    Schedule("after 20 %, uniform", 0.2, "uniform"),
    Schedule("at 0, in half the steps", 0.0, "half"),
    Schedule("never", 1.0),
]


class Trial(NamedTuple):
    """One training: the schedule's number, whether tokens are mixed, the seed."""

    schedule: int
    token_mixing: bool
    seed: int


def run_trial(trial: Trial, params: dict[str, Any], cache: str) -> list[dict[str, Any]]:
    """Train, and measure all along: a record a measurement and token count, with the error `mse`."""
    torch.set_num_threads(1)
    params = params | {"seed": trial.seed, "token_mixing": trial.token_mixing}
    _, data, config, train, _ = parse_train(params)
    images, val = load_data(data, config.image_size, cache)
    held_out = to_float(val.center_crops(val.evenly_spaced(32)))
    torch.manual_seed(train.seed)
    model = Tokenizer(config)
    optimizers = build_optimizers(tokenizer_groups(model), train)
    every, records = max(1, train.steps // POINTS), []
    for step in range(train.steps + 1):
        if step % every == 0 or step == train.steps:
            records += measure(model, held_out, trial, step)
        if step < train.steps:
            batch = to_float(images.train_batch(step, train.batch_size, train.seed))
            train_step(
                model, optimizers, batch, SCHEDULES[trial.schedule].count(step, config, train), step, train
            )
    return records


def train_step(
    model: Tokenizer, optimizers: list, batch: Tensor, count: int, step: int, config: TrainConfig
) -> None:
    """The loop's step with the mean squared error alone: batch [B, 3, H, W] in 0 … 1."""
    model.train()
    set_learning_rate(optimizers, step, config)
    output = model(batch, count)
    ((output.images - batch).square().mean() + output.loss).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def measure(model: Tokenizer, images: Tensor, trial: Trial, step: int) -> list[dict[str, Any]]:
    model.eval()
    out = []
    for count in counts(model.config.num_latent_tokens):
        mse = (model(images, count).images.clamp(0, 1) - images).square().mean().item()
        out.append(dict(schedule=SCHEDULES[trial.schedule].label, token_mixing=trial.token_mixing,
                        seed=trial.seed, step=step, num_tokens=count, mse=mse))  # fmt: skip
    return out


def counts(K: int) -> list[int]:
    return sorted({1, min(8, K), K})


def mean_image_error(images: ImageDataset, val: ImageDataset) -> float:
    """What the mean of the training images scores on the validation images that are measured."""
    mean = to_float(images.center_crops(images.evenly_spaced(500))).mean(0)
    return (to_float(val.center_crops(val.evenly_spaced(32))) - mean).square().mean().item()


# ---- what is shown ----


def curve(records: list[dict], **same: Any) -> tuple[list[int], list[float]]:
    """Steps, and the mean error over seeds (geometric, as on a scale of dB), of the records that match."""
    found: dict[int, list[float]] = {}
    for record in records:
        if all(record[key] == value for key, value in same.items()):
            found.setdefault(record["step"], []).append(math.log(record["mse"]))
    return list(found), [math.exp(sum(logs) / len(logs)) for logs in found.values()]


def draw(records: list[dict], mean_error: float) -> Figure:
    """A row of panels with token mixing and one without, a column a token count, a line a schedule."""
    shown = sorted({record["num_tokens"] for record in records})
    with mpl.rc_context(STYLE | {"lines.linewidth": 1.1}):
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        axes = figure.subplots(2, len(shown), sharex=True, sharey=True, squeeze=False)
        ends = {
            (r, c): draw_panel(axes[r, c], records, mean_error, token_mixing=mixing, num_tokens=count)
            for r, mixing in enumerate((True, False)) for c, count in enumerate(shown)
        }  # fmt: skip
        for r, mixing in enumerate(("with", "without")):
            axes[r, 0].set_ylabel(f"{mixing} token mixing\nvalidation loss (MSE)")
            label_ends(axes[r, -1], ends[r, len(shown) - 1])
        for axis, count in zip(axes[0], shown, strict=True):
            axis.set_title(tokens(count))
        axes[0, -1].text(1.08, 1.06, "prefixes begin …", fontsize=6.5, transform=axes[0, -1].transAxes)
        for axis in axes[-1]:
            axis.set_xlabel("step")
    return figure


def draw_panel(axis: Axes, records: list[dict], mean_error: float, **same: Any) -> list[tuple]:
    """A line a schedule; returns the last point of each: (loss, step, label, color)."""
    axis.axhline(mean_error, color="#888888", linestyle=":", linewidth=0.9)
    place: dict[str, Any] = dict(xycoords=("axes fraction", "data"), textcoords="offset points", ha="right")
    panel = axis.get_subplotspec()
    if panel is not None and panel.is_first_col():
        axis.annotate("the mean image", (1, mean_error), (0, 2), color="#666666", fontsize=6, **place)
    ends = []
    for schedule, color in zip(SCHEDULES, COLORS, strict=True):
        steps, losses = curve(records, schedule=schedule.label, **same)
        axis.plot(steps, losses, color=color)
        ends.append((losses[-1], steps[-1], schedule.label, color))
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    return ends


def label_ends(axis: Axes, ends: list[tuple[float, int, str, str]]) -> None:
    """Each line's name at its end, moved apart where they would overlap."""
    low, high = map(math.log, axis.get_ylim())
    at = [(math.log(loss) - low) / (high - low) for loss, *_ in sorted(ends)]  # of the panel's height
    places, gap = at[:1], 0.07
    for height in at[1:]:
        places.append(max(height, places[-1] + gap))
    shift = max(sum(places) - sum(at), len(at) * (places[-1] - 1)) / len(at)
    for place, (loss, step, name, color) in zip(places, sorted(ends), strict=True):
        axis.annotate(
            name, (step, loss), (1.08, place - shift), color=color, textcoords="axes fraction",
            va="center", fontsize=6.5, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def table(records: list[dict], mean_error: float) -> list[dict[str, Any]]:
    """A row a schedule: the step at which all K tokens tell images apart, and the final PSNR in dB."""
    shown, rows = sorted({record["num_tokens"] for record in records}), []
    for mixing in (True, False):
        for schedule in SCHEDULES:
            same = dict(schedule=schedule.label, token_mixing=mixing)
            steps, losses = curve(records, **same, num_tokens=shown[-1])
            left = [step for step, loss in zip(steps, losses, strict=True) if loss < GONE * mean_error]
            final = [-10 * math.log10(curve(records, **same, num_tokens=count)[1][-1]) for count in shown]
            row: dict[str, Any] = {
                "prefixes": schedule.label,
                "token_mixing": mixing,
                "left the mean at": left[0] if left else "never",
            }
            row |= {f"dB at {count}": round(psnr, 2) for count, psnr in zip(shown, final, strict=True)}
            rows.append(row | {"mean dB": round(sum(final) / len(final), 2)})
    return rows


def main(*texts: str) -> None:
    given = {name: value for name, _, value in (text.partition("=") for text in texts)}
    seeds = int(given.pop("seeds", 2))
    out = Path(given.pop("out", "outputs/published/elastic-schedules"))
    try:
        run, data, config, _, _ = parse_train(DEFAULTS | given)
        cache = str(run.folder.parent.parent / ".cache")
        images, val = load_data(data, config.image_size, cache)  # decoded before the processes start
    except ConfigError as error:
        sys.exit(str(error))
    mean_error = mean_image_error(images, val)
    trials = [
        Trial(i, mixing, seed)
        for seed in range(seeds) for mixing in (True, False) for i in range(len(SCHEDULES))
    ]  # fmt: skip
    work = functools.partial(run_trial, params=DEFAULTS | given, cache=cache)
    with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, len(trials))) as pool:
        done = tqdm(pool.imap(work, trials), "training", len(trials), unit="run")
        records = [record for trial in done for record in trial]
    rows = table(records, mean_error)
    caption = (
        f"Validation loss of an elastic tokenizer against the step, by when prefixes of random length begin "
        f"and how their lengths are drawn: mean of {seeds} seeds, {data.data}. Dotted: the mean image. "
        f"Made by: python -m benchmarks.elastic_schedules {' '.join(texts)}"
    ).strip()
    drawn = [{"mean_image_mse": mean_error, "table": rows}, *records]
    save(draw(records, mean_error), out, drawn, caption)
    print(table_text(rows), f"the mean image: {-10 * math.log10(mean_error):.2f} dB", sep="\n")
    print(f"figure: {out}.png, .pdf and .json")


def table_text(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, ready for a README."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
