"""Runs, evaluated: `tok1d evaluate RUN…`, the pairs among them, and the images behind a number.

Numbers of a run's own validation images are in its `eval.json` and `eval.parquet`; those of other images in
`evaluations/<their fingerprint>/`, one folder for each set. Results replace the earlier ones of the same
images once they are complete. `eval.json` names the table that it belongs to by its hash, so a process killed
between the two cannot leave numbers beside the table of other images: `table_of` refuses that.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tok1d.config.fields import ConfigError
from tok1d.config.parse import renamed
from tok1d.config.registry import CHANGES_NO_NUMBER, METRICS, NUMBERS, QUANTIZERS, asked_as
from tok1d.config.schema import DataConfig, EvalConfig, RunConfig, TokenizerConfig
from tok1d.data.dataset import CAN_TYPE, ImageDataset, WholeImages, load_data, load_images
from tok1d.data.sources import find_sources
from tok1d.evaluation.card import images_of, same_card
from tok1d.evaluation.evaluate import evaluate, reconstruct
from tok1d.evaluation.measured import LinearCode
from tok1d.evaluation.metrics.bootstrap import Interval, deviations, interval_by_halves, interval_of_sum
from tok1d.evaluation.peers import data_of, load_peer_of, open_run, self_tested
from tok1d.evaluation.table import (
    Cases,
    columns_of,
    file_sha256,
    read_table,
    subsets_of,
    table_of,
    worst_rows,
)
from tok1d.models.linear import LEVELS, LINEAR_VERSION, LinearTokenizer
from tok1d.models.tokenizer import Tokenizer
from tok1d.models.weights import model_sha256
from tok1d.runs import Run, RunError
from tok1d.system.files import replacing

TOY_ROADS = 2000  # that a linear code is fitted to: 20,000 would take minutes to draw


class Shown(NamedTuple):
    """A table of numbers as `tok1d evaluate` shows it."""

    title: str
    rows: list[dict[str, Any]]
    notes: list[str]


def evaluate_runs(
    names: list[Path], config: EvalConfig, data: str, outputs: str = RunConfig().outputs, **reading: Any
) -> Iterator[Shown]:
    """Measure finished runs, and peers: a table of each, then one of each other's differences from the first.

    Peers' evaluations are kept below `outputs`. `reading`: see `evaluate_run`. Raises `RunError` when their
    cards differ.
    """
    runs = [open_run(name, outputs).finished for name in names]
    for i, run in enumerate(runs):
        evaluation = evaluate_run(run, config, data, **reading)
        runs[i] = run.on(data)
        notes = [f"note: {warning}" for warning in evaluation["warnings"]]
        title = f"{run.path}: {evaluation['card']['images']} {images_of(evaluation)}"
        yield Shown(title, evaluation["results"], notes)
        if line := evaluation.get("linear_code"):
            yield Shown("a linear code of equal bits, on the same images: the line to beat", line, [])
    same_card(runs)
    for run in runs[1:]:
        title = f"{run.path} minus {runs[0].path}, over the same images"
        yield Shown(title, compare(runs[0], run, config), [])


def compare(first: Run, second: Run, config: EvalConfig) -> list[dict[str, Any]]:
    """`second` minus `first` at each token count that both have: a dict of differences with intervals.

    Paired over the images: what makes an image hard for both cancels out, so the interval is narrower than
    those of the two numbers. Distances of sets are compared by each image's part in them, which
    `tok1d.evaluation.metrics.sets` left in the table. Raises `RunError` when the cards differ, `ConfigError`
    without a common count.
    """
    same_card([first, second])
    mine, theirs = ({row["num_tokens"]: row for row in run.evaluation["results"]} for run in (first, second))
    counts = [count for count in mine if count in theirs]
    if not counts:
        asked = [",".join(map(str, rows)) for rows in (mine, theirs)]
        raise ConfigError(
            f"{first.path} was evaluated at {asked[0]} tokens, {second.path} at {asked[1]}: "
            f"there is no common count to compare"
        )
    rows = []
    for count in counts:
        names = [name for name in NUMBERS if asked_as(name) and name in mine[count] and name in theirs[count]]
        changes = {name: theirs[count][name] - mine[count][name] for name in names}
        found = intervals(first, second, count, changes, config.resamples) if config.resamples else {}
        ends = {f"{name}_interval": list(interval) for name, interval in found.items()}
        bits = {"bits": theirs[count]["bits"]} if "bits" in theirs[count] else {}
        rows.append({"num_tokens": count} | bits | changes | ends)
    return rows


def intervals(
    first: Run, second: Run, count: int, changes: dict[str, float], resamples: int
) -> dict[str, Interval]:
    """Of differences by name, where the two tables say enough."""
    tables = table_of(first), table_of(second)
    mine, theirs = (subsets_of(path, count) for path in tables)
    subsets = {name: theirs[name] - mine[name] for name in changes if name in mine and name in theirs}
    shared = [name for name in changes if all(name in columns_of(path) for path in tables)]
    a, b = (read_table(path, count, shared) for path in tables)
    found = {}
    for name in shared:
        parts = b[name].to_numpy() - a[name].to_numpy()
        found[name] = interval_of_sum([parts, *deviations(subsets.get(name))], resamples)
    for name in subsets:
        if METRICS[asked_as(name)].halves:
            found[name] = interval_by_halves(changes[name], subsets[name])
    return found


def evaluate_run(
    run: Run, config: EvalConfig, data: str = "", again: bool = True, **reading: Any
) -> dict[str, Any]:
    """Measure a finished run on `data` (empty: its own validation images); keeps and returns the evaluation.

    With `again=False` nothing that was measured is lost: the evaluation on `data` that the run has is
    returned if it covers what `config` asks for; otherwise what it was asked for is measured too. `reading`
    are parameters of `DataConfig` (max_unreadable, data_root …) instead of the run's. Raises `RunError` for a
    run that is not finished, `ConfigError` for images or weights that cannot be had.
    """
    data = data_of(run, data) if run.kind == "peer" else data
    tokenizer = load_tokenizer(run)
    if not again and (earlier := earlier_evaluation(run, data, model_sha256(tokenizer))):
        asked = EvalConfig(**renamed(earlier["asked"]))
        reading = earlier.get("reading", {}) | reading
        measured = [row["num_tokens"] for row in earlier["results"]]
        config = merge_requests(asked, measured, config)
        same = asked.model_copy(update={"token_counts": config.token_counts, **unseen(config)}) == config
        if same and set(config.token_counts) <= set(measured):
            return earlier
    images = evaluation_images(run, data, tokenizer.config.image_size, **reading)
    return measure(run, tokenizer, images, config, data, **reading)


def earlier_evaluation(run: Run, data: str, sha256: str) -> dict[str, Any] | None:
    """The evaluation on `data` that a run has, if it is of these weights."""
    try:
        found, _ = run.on(data).evaluation, table_of(run.on(data))
    except (RunError, ValueError):  # there is none, or it was cut off
        return None
    same = found["card"].get("model_sha256") == sha256 and found.get("data", "") == data
    return found if same and "asked" in found else None


def merge_requests(earlier: EvalConfig, measured: list[int], config: EvalConfig) -> EvalConfig:
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
    run: Run, tokenizer: Any, images: ImageDataset, config: EvalConfig, data: str = "", **reading: Any
) -> dict[str, Any]:
    """Measure a run's tokenizer, or a peer, on `images`, those of `data` read with `reading`; keeps the
    evaluation.
    """
    reference = None
    if config.reference_data:
        size = tokenizer.config.image_size
        reference = evaluation_images(run, config.reference_data, size, **reading)

    def measured(table: Path) -> dict[str, Any]:
        evaluation = evaluate(tokenizer, images, config, reference=reference, table=table, cache=run.cache)
        evaluation["card"] |= {
            "model": str(run.path),
            "data": data or run.params["val_data"] or run.params["data"],
        } | ({"reference_data": config.reference_data} if reference else {})
        evaluation |= {"data": data, "reading": reading, "asked": config.model_dump(mode="json")}
        if run.kind == "peer":
            evaluation["warnings"] = evaluation["warnings"] + self_tested(run, tokenizer, images)
        elif config.linear_code:
            evaluation["linear_code"] = linear_results(run, tokenizer.config, images, config, reference)
        return evaluation | {"table_sha256": file_sha256(table)}

    if data:
        with replacing(run / "evaluations" / images.fingerprint[:12]) as folder:
            folder.mkdir()
            evaluation = measured(folder / "eval.parquet")
            Run(folder).write_json("eval.json", evaluation)
        return evaluation
    keep_of_other_images(run)
    with replacing(run / "eval.parquet") as table:
        evaluation = measured(table)
        run.write_json("eval.json", evaluation)  # before the table: it says which one it belongs to
    return evaluation


def keep_of_other_images(run: Run) -> None:
    """An earlier tok1d wrote evaluations on any images into the run folder: such a one moves to its place."""
    with contextlib.suppress(RunError, ValueError, KeyError):
        if run.evaluation.get("data"):
            kept = run / "evaluations" / run.evaluation["card"]["data_fingerprint"][:12]
            table = table_of(run)
            if not kept.exists():
                with replacing(kept) as folder:
                    folder.mkdir()
                    for file in (run / "eval.json", table):
                        shutil.copy(file, folder)


def linear_results(
    run: Run,
    tokenizer: TokenizerConfig,
    images: ImageDataset,
    config: EvalConfig,
    reference: ImageDataset | None,
) -> list[dict[str, Any]]:
    """The numbers of the `linear_code` of equal bits, [] where there is none.

    Kept beside the decoded images: other runs on the same data find them there.
    """
    code = linear_code(run, tokenizer, config.token_counts)
    if code is None:
        return []
    what: list[Any] = [code.fitted_to, images.fingerprint, reference and reference.fingerprint]
    what += [code.token_counts, code.bits_per_token, LINEAR_VERSION]
    what += [config.model_dump(mode="json", exclude={"token_counts", *CHANGES_NO_NUMBER})]
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    file = Path(run.cache) / f"linear-{key}.json"
    if not file.exists():
        own = config.model_copy(update={"token_counts": code.token_counts})
        found = evaluate(code, images, own, reference=reference, cache=run.cache)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(found["results"]), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def linear_code(run: Run, tokenizer: TokenizerConfig, counts: tuple[int, ...] = ()) -> LinearCode | None:
    """The linear code of a tokenizer's bits at each count, fitted to the run's training images (of toy roads,
    drawn for this alone, to the first 2,000); None without those, and beside continuous tokens, whose float32
    bits nobody would store.
    """
    if run.kind == "peer" or QUANTIZERS[tokenizer.quantizer].continuous:
        return None
    try:
        return fit_linear_code(
            run.config(DataConfig), tokenizer.image_size, counts or tokenizer.token_counts,
            tokenizer.bits_per_token, run.cache,
        )  # fmt: skip
    except (ConfigError, OSError):
        return None


def fit_linear_code(
    data: DataConfig, size: int, counts: tuple[int, ...], bits_per_token: float, cache: Path
) -> LinearCode | None:
    """A linear code of these bits, fitted to the training images of `data`; None where there are too few.
    Raises `ConfigError` if they are not here.
    """
    data = data.model_copy(update={"toy_images": min(data.toy_images, TOY_ROADS)})
    training, _ = load_data(data, size, cache)
    if len(training) < 2:
        return None
    tokens = math.ceil(max(counts) * bits_per_token / math.log2(math.prod(LEVELS)))
    code = LinearTokenizer(size, tokens)
    code.fit_once(WholeImages(training), training.fingerprint, Path(cache), replacing)
    return LinearCode(code, counts, bits_per_token, training.fingerprint)


def load_tokenizer(run: Run) -> Any:
    """A finished run's `Tokenizer`, or the peer that it is of, on the GPU if there is one. Raises `RunError`,
    or `ConfigError` for a peer that cannot be had.
    """
    if run.kind == "peer":
        return load_peer_of(run)
    if run.kind == "prior":
        raise RunError(
            f"{run.path} is a prior, not a tokenizer: its images are made, and measured, by "
            f"'tok1d run notebooks/generate.ipynb'; type the run of a tokenizer"
        )
    if not (run.finished / "model" / "model.safetensors").exists():
        raise RunError(
            f"{run.path} has lost its weights, model/model.safetensors: "
            f"bring the file back, or delete the folder and train it again"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with contextlib.redirect_stdout(io.StringIO()):  # the hub's library says that the folder is a folder
        tokenizer = Tokenizer.from_pretrained(run / "model")
    return tokenizer.to(device).eval()


def evaluation_images(run: Run, data: str, size: int, **reading: Any) -> ImageDataset:
    """The images of `data`, all of them; empty: the run's validation images. `reading` are parameters of
    `DataConfig` instead of the run's. Raises `ConfigError`.
    """
    config = run.config(DataConfig)
    if data:
        data = run.locate(data) if not Path(data).exists() else data
        config = DataConfig(data=data, val_data="" if data == "toy-roads" else data)
    config = config.model_copy(update=reading)
    try:
        _, source = find_sources(config, size, run.cache)
    except ConfigError as error:
        typed = run.params["val_data"] or run.params["data"]
        if data or not str(error).startswith("there is no "):
            raise
        raise ConfigError(
            f"the validation images of {run.path}, {typed}, are not here: type 'tok1d evaluate {run.path} "
            f"--data FOLDER', or work in the folder that it was made in"
        ) from None
    return load_images(source, size, run.cache, config.max_unreadable, CAN_TYPE)


def images_behind(run: Run, size: int) -> ImageDataset:
    """Those of a run's evaluation. Raises `ConfigError`."""
    evaluation = run.evaluation
    return evaluation_images(run, evaluation.get("data", ""), size, **evaluation.get("reading", {}))


def worst(run: Run, number: str, num_tokens: int | None = None, count: int = 10) -> Cases:
    """From a number of a run's evaluation to the images behind its worst cases, and their reconstructions.

    `num_tokens` None: the largest count. rFID and other distances of sets are led back to the images whose
    features moved most, code numbers to those with the fewest codes. Raises `ConfigError`.
    """
    evaluation = run.evaluation
    counts = [row["num_tokens"] for row in evaluation["results"] if number in row]
    if number not in NUMBERS or not counts:
        have = [n for n in NUMBERS if any(n in row for row in evaluation["results"])]
        raise ConfigError(f"{run.evaluated}/eval.json has no {number}: {remedy(run, number, have)}")
    num_tokens = num_tokens or counts[-1]
    if num_tokens not in counts:
        raise ConfigError(
            f"{run.path} was not evaluated at {num_tokens} tokens: type one of {', '.join(map(str, counts))}"
        )
    rows = worst_rows(table_of(run), number, num_tokens, count)
    tokenizer = load_tokenizer(run)
    images = images_behind(run, tokenizer.config.image_size)
    originals = images.center_crops(rows["image"].tolist())
    return Cases(rows, originals, reconstruct(tokenizer, originals, (num_tokens,))[num_tokens])


def remedy(run: Run, number: str, have: list[str]) -> str:
    if metric := asked_as(number):
        return f"measure it with '{run.to_evaluate} -p metrics=psnr,ssim,{metric}'"
    return f"it has {', '.join(have)}"
