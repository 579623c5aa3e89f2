"""Runs, evaluated: `tok1d evaluate RUN…`, the pairs among them, and the images behind a number.

Results replace `eval.json` and `eval.parquet` once they are complete: after an error the earlier ones are
still there.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tok1d.config.metrics import CHANGES_NO_NUMBER, NUMBERS, asked_as
from tok1d.config.schema import ConfigError, DataConfig, EvalConfig
from tok1d.data.dataset import Images, load_images
from tok1d.data.sources import find_sources
from tok1d.evaluation.card import model_sha256, same_card
from tok1d.evaluation.evaluate import evaluate, reconstruct
from tok1d.evaluation.table import Cases, worst_rows
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run, RunError
from tok1d.system import replacing


def evaluate_run(run: Run, config: EvalConfig, data: str = "", again: bool = True) -> dict[str, Any]:
    """Measure a finished run on `data` (empty: its own validation images); keeps and returns the evaluation.

    With `again=False` nothing that was measured is lost: the evaluation that the run has is returned if it
    covers what `config` asks for; otherwise what it was asked for, on its data, is measured too. Raises
    `RunError` for a run that is not finished, `ConfigError` for images or weights that cannot be had.
    """
    tokenizer = load_tokenizer(run)
    if not again and (earlier := earlier_evaluation(run, data, model_sha256(tokenizer))):
        asked, data = EvalConfig(**earlier["asked"]), earlier["data"]
        measured = [row["num_tokens"] for row in earlier["results"]]
        config = joined(asked, measured, config)
        same = asked.model_copy(update={"token_counts": config.token_counts, **unseen(config)}) == config
        if same and set(config.token_counts) <= set(measured):
            return earlier
    images = evaluation_images(run, data, tokenizer.config.image_size)
    return measure(run, tokenizer, images, config, data)


def earlier_evaluation(run: Run, data: str, sha256: str) -> dict[str, Any] | None:
    """The evaluation that a run has, if it is of these weights and of `data` (empty: any)."""
    if not (run / "eval.json").exists() or not (run / "eval.parquet").exists():
        return None
    found = run.evaluation
    same = found["card"].get("model_sha256") == sha256 and data in ("", found.get("data"))
    return found if same and "asked" in found else None


def joined(earlier: EvalConfig, measured: list[int], config: EvalConfig) -> EvalConfig:
    """What `config` says, and what `earlier` says where `config` says nothing; metrics and counts of both."""
    default = EvalConfig()
    said = {name: value for name, value in config if value != getattr(default, name)}
    if "metrics" in said:
        said["metrics"] = tuple(dict.fromkeys((*earlier.metrics, *config.metrics)))
    if "token_counts" in said:
        said["token_counts"] = tuple(sorted({*measured, *config.token_counts}))
    return earlier.model_copy(update=said)


def unseen(config: EvalConfig) -> dict[str, Any]:
    """What changes no number."""
    return {name: getattr(config, name) for name in CHANGES_NO_NUMBER}


def measure(
    run: Run, tokenizer: Tokenizer, images: Images, config: EvalConfig, data: str = ""
) -> dict[str, Any]:
    """Measure a run's tokenizer on `images`, those of `data`, and keep the evaluation in the run."""
    reference = None
    if config.reference_data:
        reference = evaluation_images(run, config.reference_data, tokenizer.config.image_size)
    with replacing(run / "eval.parquet") as table:
        evaluation = evaluate(tokenizer, images, config, reference=reference, table=table, cache=run.cache)
    evaluation["card"] |= {
        "model": str(run.path),
        "data": data or run.params["val_data"] or run.params["data"],
    }
    evaluation |= {"data": data, "asked": config.model_dump(mode="json")}
    run.write_json("eval.json", evaluation)
    return evaluation


def load_tokenizer(run: Run) -> Tokenizer:
    """A finished run's model, on the GPU if there is one. Raises `RunError`."""
    if not (run.finished / "model" / "model.safetensors").exists():
        raise RunError(
            f"{run.path} has lost its weights, model/model.safetensors: "
            f"bring the file back, or delete the folder and train it again"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with contextlib.redirect_stdout(io.StringIO()):  # the hub's library says that the folder is a folder
        tokenizer = Tokenizer.from_pretrained(run / "model")
    return tokenizer.to(device).eval()


def evaluation_images(run: Run, data: str, size: int) -> Images:
    """The images of `data`, all of them; empty: the run's validation images. Raises `ConfigError`."""
    config = run.config(DataConfig)
    if data:
        config = DataConfig(data=data, val_data="" if data == "toy-roads" else data)
    _, source = find_sources(config, size, run.cache)
    return load_images(source, size, run.cache, config.max_unreadable)


def worst(run: Run, number: str, num_tokens: int | None = None, count: int = 10) -> Cases:
    """From a number in a run's `eval.json` to the images behind its worst cases, and their reconstructions.

    `num_tokens` None: the largest count. rFID and other distances of sets are led back to the images whose
    features moved most, code numbers to those with the fewest codes. Raises `ConfigError`.
    """
    evaluation = run.evaluation
    counts = [row["num_tokens"] for row in evaluation["results"] if number in row]
    if number not in NUMBERS or not counts:
        have = [n for n in NUMBERS if any(n in row for row in evaluation["results"])]
        raise ConfigError(f"{run.path}/eval.json has no {number}: {remedy(run, number, have)}")
    num_tokens = num_tokens or counts[-1]
    if num_tokens not in counts:
        raise ConfigError(
            f"{run.path} was not evaluated at {num_tokens} tokens: type one of {', '.join(map(str, counts))}"
        )
    rows = worst_rows(run / "eval.parquet", number, num_tokens, count)
    tokenizer = load_tokenizer(run)
    images = evaluation_images(run, evaluation.get("data", ""), tokenizer.config.image_size)
    originals = images.centre(rows["image"].tolist())
    return Cases(rows, originals, reconstruct(tokenizer, originals, (num_tokens,))[num_tokens])


def remedy(run: Run, number: str, have: list[str]) -> str:
    if metric := asked_as(number):
        return f"measure it with 'tok1d evaluate {run.path} -p metrics=psnr,ssim,{metric}'"
    return f"it has {', '.join(have)}"


def evaluate_command(folders: list[Path], config: EvalConfig, data: str) -> Iterator[str]:
    """`tok1d evaluate`: each run's numbers as lines, then the differences of the others from the first.

    Raises `RunError` when their cards differ.
    """
    from tok1d.evaluation.comparison import compare
    from tok1d.jupyter.tables import lines

    runs = [Run(folder).finished for folder in folders]
    width = shutil.get_terminal_size((110, 24)).columns
    for run in runs:
        evaluation = evaluate_run(run, config, data)
        yield f"{run.path}: {evaluation['card']['images']} images"
        yield from lines(evaluation["results"], width)
        yield from (f"note: {warning}" for warning in evaluation["warnings"])
    same_card(runs)
    for run in runs[1:]:
        yield f"{run.path} minus {runs[0].path}, over the same images"
        yield from lines(compare(runs[0], run, config), width)
