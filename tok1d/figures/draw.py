"""The figures of a sweep, drawn from the files in its run folders and from nothing else.

    draw("quality", runs, "outputs/toy/figures", metric="rfid")    # PNG, PDF, and a JSON beside them

Each is made in two steps: the runs' files become a list of items, every number of which names its run and its
card, and that list becomes a figure. The JSON keeps the list, so a figure of numbers can be drawn again where
the runs are not: `redraw`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from tok1d.config.fields import ConfigError
from tok1d.config.registry import NUMBERS, asked_as
from tok1d.evaluation.card import card_id, images_of, protocol
from tok1d.figures import guidance, images, quality, rate_distortion, training
from tok1d.figures.series import LINEAR
from tok1d.figures.style import Drawn, show
from tok1d.runs import Lacking, Run
from tok1d.runs.files import read_json
from tok1d.system.files import replacing


def of_numbers(run: Run, metric: str) -> dict[str, Any]:
    return protocol(run.evaluation["card"], metric)


class Kind(NamedTuple):
    collect: Callable[..., Drawn]  # runs, and some of `draw`'s options -> what is drawn; empty: not possible
    draw: Callable[..., Figure]
    caption: str  # with the words of `caption`
    options: tuple[str, ...] = ()  # of both steps
    chooses: tuple[str, ...] = ()  # of the first alone
    needs: str = ""  # what runs it takes
    card: Callable[[Run, str], dict[str, Any]] = of_numbers  # what numbers of a run and metric must share
    images: bool = False  # needs image files


INTERVAL = "Lines: means over seeds; small dots: seeds; bars: 95 % bootstrap intervals over images."
DASHED = " Dashed: a linear code of equal bits, fitted to the training images."
RANDOM = " No encoder among them is pretrained."
HOLLOW = " Hollow marks: as the work that this project starts from published them, measured otherwise."
FIGURES = {
    "encoders": Kind(
        images.encoders, images.draw_rows,
        "Originals and their reconstructions at {num_tokens} by kind of encoder; beside each its mean "
        "PSNR {on}.{random}", chooses=("num_tokens",), needs="runs of more than one kind", images=True,
    ),
    "token-counts": Kind(
        images.token_counts, images.draw_rows,
        "Originals and their reconstructions by token count, {series}; beside each its mean PSNR {on}.",
        needs="more than one token count", images=True,
    ),
    "quality": Kind(
        quality.quality, quality.draw_quality,
        "{metric} {on} against the number of tokens. " + INTERVAL, options=("metric",),
    ),
    "rate-distortion": Kind(
        rate_distortion.of_runs, rate_distortion.draw_rate_distortion,
        "PSNR against bytes per image, on {few}: tokens (means over seeds), and the best settings of codecs, "
        "whole files and, thin, without their headers.",
    ),
    "codes": Kind(
        quality.codes, quality.draw_codes,
        "Codebook {on}: share of codes in use, and effective number of codes (perplexity). Dotted: the "
        "most that so many tokens can show. " + INTERVAL,
        needs="runs with a codebook", card=lambda run, metric: of_numbers(run, "code_perplexity"),
    ),
    "elastic": Kind(
        quality.elastic, quality.draw_quality,
        "{metric} {on}: one elastic tokenizer at all counts beside a tokenizer of its own for each. "
        + INTERVAL, options=("metric",), needs="both elastic and fixed runs that are alike otherwise",
    ),
    "training": Kind(
        training.training, training.draw_training,
        "PSNR of training batches with all tokens against the time of training; each seed a line. These "
        "images are learned, and cropped at random: tables and other figures measure validation images.",
        chooses=("num_tokens",), card=lambda run, metric: training.card_of(run),
    ),
    "guidance": Kind(
        guidance.guidance, guidance.draw_guidance,
        "Distance of generated images to {generated}, against the scale of guidance, and against diversity: "
        "the share of those images that samples come near. Bars: 95 % intervals.",
        needs="priors whose samples were measured (metrics=rfid,prdc) at more than one guidance",
        card=lambda run, metric: protocol(run.evaluation["card"]),
    ),
}  # fmt: skip


def draw_figure(name: str, runs: list[Run], folder: str | Path, **options: Any) -> None:
    """Draw one of `FIGURES` of these runs, keep it in `folder`, and show it; say so if they do not have what
    it needs. Options: `metric`, `num_tokens` (0: what most runs have). Raises `RunError` when runs were not
    measured alike.
    """
    kind = FIGURES[name]
    path = Path(folder) / named(name, options)
    chosen = {k: options[k] for k in kind.options if k in options}
    try:
        more = {k: options[k] for k in kind.chooses if k in options}
        drawn = kind.collect(runs, **chosen, **more) if runs else []
        figure = kind.draw(drawn, **chosen) if drawn else None
        reason = f"it needs {kind.needs or 'runs of tokenizers'}"
    except quality.Same as error:
        figure, reason = None, str(error)
    except (ConfigError, Lacking) as error:  # its images are elsewhere, or were not made
        print(f"{name} is not drawn: {error}")
        return
    if figure is None:
        print(f"{name} is not drawn: {reason}")
        for old in path.parent.glob(f"{path.name}.*"):  # of runs that are gone
            old.unlink()
        return
    names = {item["run"] for item in drawn if "run" in item}
    shown = [run for run in runs if str(run.path) in names]
    card = kind.card(shown[0], chosen.get("metric", "psnr"))  # all cards are alike
    text = caption(kind, drawn, shown, options)
    about = {"kind": name, "options": chosen, "cards": {card_id(card): card}}
    show(save(figure, path, drawn, text, **about), text)


def named(name: str, options: dict[str, Any]) -> str:
    """A figure's file: `quality`, and of another metric than PSNR `quality-rfid`."""
    metric = options.get("metric", "psnr") if "metric" in FIGURES[name].options else "psnr"
    return name if metric == "psnr" else f"{name}-{metric}"


def caption(kind: Kind, drawn: Drawn, shown: list[Run], options: dict[str, Any]) -> str:
    counts = {d["num_tokens"] for d in drawn if "num_tokens" in d}
    sizes = {run.evaluation["card"]["images"] for run in shown}
    words = {
        "metric": NUMBERS[options.get("metric", "psnr")].label,
        "num_tokens": images.tokens(max(counts, default=0)),
        "series": "same tokenizer" if len({d.get("run") for d in drawn}) == 1 else "a tokenizer for each",
        "on": on(shown[0].evaluation, options.get("metric", "psnr")) if "{on}" in kind.caption else "",
        "few": few(max((d["images"] for d in drawn if "images" in d), default=0), max(sizes, default=0)),
        "random": RANDOM if all_random(drawn) else "",
        "generated": reference_of(shown[0].evaluation),
    }
    text = kind.caption.format(**words)
    text += DASHED if any(d.get("series") == LINEAR for d in drawn) else ""
    return text + (HOLLOW if any("published" in d for d in drawn) else "")


def on(evaluation: dict[str, Any], metric: str) -> str:
    """ "on 200 validation images of toy-roads", and of a distance of sets to which images it is."""
    card = evaluation["card"]
    metrics = {name: facts for name, facts in card.get("metrics", {}).items() if name == asked_as(metric)}
    return f"on {card['images']:,} {images_of(evaluation | {'card': card | {'metrics': metrics}})}"


def reference_of(evaluation: dict[str, Any]) -> str:
    """ "200 validation images"; empty of reconstructions."""
    reference = evaluation["card"].get("reference")
    return f"{reference['images']:,} {reference['which']}" if isinstance(reference, dict) else ""


def few(measured: int, all_images: int) -> str:
    """Which images a figure is of, and why its numbers differ from those of a table."""
    if measured == all_images:
        return f"all {all_images:,} validation images"
    why = "so not quite the PSNR of tables, which are of all"
    return f"{measured} of the {all_images:,} validation images ({why})"


def all_random(drawn: Drawn) -> bool:
    """Whether no encoder began with pretrained weights."""
    params = [Run(run).params for run in {d["run"] for d in drawn if "run" in d}]
    return not any(
        p.get("encoder_init", "random") != "random" or p.get("init_from") or p.get("peer") for p in params
    )


def keep(run: Run, name: str, figure: Figure, caption: str, drawn: Drawn | None = None) -> None:
    """Show a figure of a prior's samples, and keep it in `samples/` of its run."""
    show(save(figure, run / "samples" / name, drawn or [], caption))


def save(figure: Figure, path: str | Path, drawn: Drawn, caption: str, **about: Any) -> Figure:
    """Write `path`.png, .pdf and .json (caption and every number drawn); returns the figure, to be shown."""
    path = Path(path)
    save_pictures(figure, path)
    with replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(
            json.dumps({"caption": caption} | about | {"drawn": drawn}, indent=1) + "\n", encoding="utf-8"
        )
    return figure


def save_pictures(figure: Figure, path: Path) -> None:
    """PNG and PDF; of the same figure the same bytes."""
    for kind, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
        with replacing(path.with_suffix(f".{kind}")) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)


def redraw(sidecar: Path) -> bool:
    """Draw a figure of numbers again from its JSON; False if that is none, or needs images of the runs."""
    kept = read_json(sidecar, dict[str, Any], f"draw it again, or type 'rm {sidecar}'")
    kind = FIGURES.get(kept.get("kind", ""))
    if not kind or kind.images or not {"drawn", "options"} <= kept.keys():
        return False
    save_pictures(kind.draw(kept["drawn"], **kept["options"]), sidecar)
    return True
