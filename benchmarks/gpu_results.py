"""Published results from one GPU, by one command that is typed again until it says that it is done.

    make gpu-results DATA=frames/train VAL=frames/val WEIGHTS=.weights
    python -m benchmarks.gpu_results [STAGE …] data=… val_data=… [weights=.weights] [slice=540] [steps=…]

    tokenizers    the runs of params/sweeps/gpu.yaml, each trained and measured
    priors        those of params/sweeps/gpu_priors.yaml, over one of these tokenizers
    speed         a step of ours by network size, beside eager float32: speed.json
    publish       figures of numbers, comparisons, what the doctor says: outputs/published/<sweep>

Without a STAGE all of them, in this order. NAME=VALUE is a parameter of every run, or one of `Options`.

A call is a slice: `slice` seconds after its start it ends by itself, with a checkpoint, and whenever it is
killed the next one goes on. Exit status: 0 done, 75 (`TRY_AGAIN`) type the same once more, 1 a sentence says
what is wrong.

One process makes all runs, one after the other, as the notebooks do but without a kernel for each, which is 8
to 15 seconds a run; `tok1d sweep` on the same two files makes them with notebooks, on many GPUs.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu_findings import publish_findings
from benchmarks.step import measure as measure_step
from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import GenerateParams, TrainParams, configs_of
from tok1d.config.parse import parse_notebook, parse_pairs, unknown_name
from tok1d.config.schema import fields
from tok1d.data.dataset import load_data
from tok1d.evaluation.runs import measure
from tok1d.generation.measure import measure_samples
from tok1d.generation.train import open_tokenizer, tokens_of, train_prior
from tok1d.runs import TRY_AGAIN, Run, RunError
from tok1d.sweeps.after import followed
from tok1d.sweeps.plan import Cell, Plan, read_plan
from tok1d.system.files import replacing
from tok1d.training.initialize import check_initialization
from tok1d.training.train import precision, train

AGAIN = 5.0  # seconds between askings to stop
GRACE = 30.0  # seconds to stop in, before the process is ended
PARTS = (1, 2, 4, 8)  # of a batch whose speed is measured
OURS, REFERENCE = "fixed-64", "reference"  # runs that are given the same time
SCHEDULE = ("warmup_steps", "discriminator_start", "entropy_decay_steps")  # of the reference, in steps
DRAWN = dict(data="toy-roads", val_data="", toy_images=16, toy_val_images=1)  # what speeds are measured on
WHOLE_STEP = dict(decoder_refine="none", adversarial_weight=0.1)  # ViT alone, and both losses beside pixels
VARIANTS: dict[str, dict[str, Any]] = {  # compiled ones on a GPU alone: on a CPU that takes minutes
    "eager float32": dict(mixed_precision="no", compile=False),
    "bf16": dict(mixed_precision="bf16", compile=False),
    "bf16 compiled": dict(mixed_precision="bf16", compile=True),
}


class Options(NamedTuple):
    slice: str = "540"  # seconds
    outputs: str = "outputs"
    weights: str = ".weights"  # folder of the pretrained files, instead of this one in the sweep files
    sweep: str = "params/sweeps/gpu.yaml"
    priors: str = "params/sweeps/gpu_priors.yaml"
    sizes: str = "S,B,L"  # of the networks whose speed is measured
    speed_batch: str = "128"
    readme: str = "README.md"  # whose table of results is renewed
    title: str = "Dashcam frames at 256 pixels, one GPU"


def main(*arguments: str) -> int:
    """Go on with everything until it is done or the slice is over; returns the exit status."""
    stages = [word for word in arguments if word in STAGES]
    try:
        given = parse_pairs([word for word in arguments if word not in STAGES])
        options = Options(**{name: given.pop(name) for name in Options._fields if name in given})
        with ending_after(seconds_of(options.slice)):
            for stage in stages or STAGES:
                STAGES[stage](options, given)
    except KeyboardInterrupt as stopped:
        print(
            f"not done yet ({str(stopped) or 'the slice is over'}): type the same command again", flush=True
        )
        return TRY_AGAIN
    except (ConfigError, RunError) as error:
        print(f"tok1d: {error}", file=sys.stderr)
        return 1
    print("done")
    return 0


def seconds_of(text: str) -> float:
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"slice={text} is no number of seconds: type slice=540")
    return float(text)


@contextmanager
def ending_after(seconds: float) -> Iterator[None]:
    """Ctrl-C to this process after `seconds`, until it ends: training with a checkpoint, all else at once,
    since nothing is ever half written. If it does not end in `GRACE` seconds, it is ended.
    """
    last = threading.Timer(seconds + GRACE, os._exit, (TRY_AGAIN,))
    last.daemon = True
    last.start()
    signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        last.cancel()


# ---- tokenizers and priors ----


def tokenizers(options: Options, given: dict[str, str]) -> None:
    plan = tokenizers_of(options, given)
    make_all(plan, lambda cell: make_tokenizer(equal_time(plan) if cell.name == REFERENCE else cell))


def priors(options: Options, given: dict[str, str]) -> None:
    make_all(priors_of(options, given), make_prior)


def tokenizers_of(options: Options, given: dict[str, str]) -> Plan:
    return located(read_plan(options.sweep, known("train", given), outputs=options.outputs), options)


def priors_of(options: Options, given: dict[str, str]) -> Plan:
    """Over the tokenizer of this name in `outputs`."""
    plan = read_plan(options.priors, known("generate", given), outputs=options.outputs)
    folder = tokenizers_of(options, given).folder
    tokenizer = folder / Path(plan.cells[0].params["tokenizer"]).name
    return located(plan, options, tokenizer=str(tokenizer))


def known(notebook: str, given: dict[str, str]) -> dict[str, str]:
    """The given parameters that a notebook has. Raises `ConfigError` for one that no run has."""
    every = {name: fields(*configs_of(name)) for name in ("train", "generate")}
    for name in given:
        if not any(name in names for names in every.values()):
            raise ConfigError(unknown_name(name, every["train"]))
    return {name: value for name, value in given.items() if name in every[notebook]}


def located(plan: Plan, options: Options, **changes: str) -> Plan:
    """The plan with its pretrained files in `options.weights`, and parameters changed."""

    def moved(cell: Cell) -> Cell:
        params = {name: in_folder(value, options.weights) for name, value in cell.params.items()} | changes
        return changed(plan, cell, params)

    return plan._replace(cells=[moved(cell) for cell in plan.cells])


def in_folder(value: Any, folder: str) -> Any:
    inside = isinstance(value, str) and value.startswith(f"{Options().weights}/")
    return str(Path(folder, Path(value).name)) if inside else value


def changed(plan: Plan, cell: Cell, params: dict[str, Any]) -> Cell:
    configs = parse_notebook(plan.config.notebook, params)
    assert isinstance(configs, TrainParams | GenerateParams)
    return cell._replace(params=params, configs=configs)


def make_all(plan: Plan, make: Callable[[Cell], None]) -> None:
    """Make the runs that are not finished; one that cannot be made does not keep the others. Raises
    `RunError` for those in the end.
    """
    failed = {}
    for number, cell in enumerate(plan.cells, 1):
        if cell.run.done:
            continue
        print(f"== {cell.run.path}, {number} of {len(plan.cells)}", flush=True)
        torch.compiler.reset()  # a block is compiled for so many shapes, and they are other ones now
        try:
            make(cell)
        except (RunError, torch.OutOfMemoryError) as error:
            failed[cell.name] = str(error).split("\n")[0]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if failed:
        raise RunError("; ".join(f"{name}: {why}" for name, why in failed.items()))


def make_tokenizer(cell: Cell) -> None:
    """What the train notebook does, without its pictures."""
    params = cell.of_tokenizer
    run = Run.open(*params)
    check_initialization(run, params.tokenizer, params.train)
    images, val_images = load_data(params.data, params.tokenizer.image_size, run.cache)
    tokenizer = train(run, images, params.tokenizer, params.train)
    run.finish(results=measure(run, tokenizer, val_images, params.evaluation)["results"])


def make_prior(cell: Cell) -> None:
    """What the generate notebook does, without its pictures."""
    params = cell.configs
    assert isinstance(params, GenerateParams)
    tokenizer = open_tokenizer(params.prior)
    tokens = tokens_of(tokenizer, params)
    run = Run.open(*params)
    generator = train_prior(run, tokenizer, tokens.train, params)
    found = measure_samples(run, generator, tokens, params.sample, params.evaluation)
    run.finish(results=found["results"])


def equal_time(plan: Plan) -> Cell:
    """The reference with as many steps as fit into the time that `OURS` was trained for, and its schedule
    shortened in proportion. How many is measured once, and kept in `equal_time.json`.
    """
    cells = {cell.name: cell for cell in plan.cells}
    reference, file = cells[REFERENCE], plan.folder / "equal_time.json"
    if not file.exists():
        seconds = cells[OURS].run.finished.manifest["train_seconds"]
        a_step = seconds_of_step(reference)
        kept = {"seconds": seconds, "seconds_a_step": a_step, "steps": max(4, round(seconds / a_step))}
        write_json(file, kept)
    steps = json.loads(file.read_text(encoding="utf-8"))["steps"]
    config = reference.of_tokenizer.train
    share = {name: max(1, round(getattr(config, name) * steps / config.steps)) for name in SCHEDULE}
    return changed(plan, reference, reference.params | {"steps": steps} | share)


def seconds_of_step(cell: Cell) -> float:
    """The mean over a training whose discriminator comes in at `discriminator_start`."""
    config = cell.of_tokenizer.train
    alone = config.discriminator_start / config.steps
    params = cell.params | DRAWN | {"mixed_precision": precision(config)}

    def seconds(**more: Any) -> float:
        return config.batch_size / measure_step(params | more)["images/s"]

    return alone * seconds(adversarial_weight=0) + (1 - alone) * seconds(discriminator_start=0)


# ---- speed, and what is published ----


def speed(options: Options, given: dict[str, str]) -> None:
    """A row of `speed.json` for each network size and arithmetic, in a process of its own."""
    plan = tokenizers_of(options, given)
    ours = next(cell for cell in plan.cells if cell.name == OURS)
    file = plan.folder / "speed.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    names = [name for name in VARIANTS if torch.cuda.is_available() or not VARIANTS[name]["compile"]]
    known_rows = {(row["size"], row["arithmetic"]) for row in rows}
    for size, name in itertools.product(options.sizes.split(","), names):
        if (size, name) in known_rows:
            continue
        row: dict[str, Any] = {"size": size, "arithmetic": name, "batch_size": int(options.speed_batch)}
        network = dict(encoder_size=size, decoder_size=size, batch_size=options.speed_batch)
        row |= step_facts(ours.params | DRAWN | WHOLE_STEP | network | VARIANTS[name])
        eager = next((other for other in rows if other["size"] == size), row)
        if "images/s" in row and "images/s" in eager:
            row["times eager float32"] = round(row["images/s"] / eager["images/s"], 2)
        rows.append(row)
        write_json(file, {"rows": rows})
        print(f"{size}, {name}: {row.get('images/s', row.get('failed'))} images/s", flush=True)


def step_facts(params: dict[str, Any]) -> dict[str, Any]:
    """What `python -m benchmarks.step one` says, the batch in as few parts as memory allows; or why it
    `failed`.
    """
    names = fields(*configs_of("train")).keys() - {"outputs", "sweep", "run"}
    facts: dict[str, Any] = {}
    for parts in PARTS:
        given = {name: value for name, value in params.items() if name in names} | {"grad_accum_steps": parts}
        texts = [f"{name}={as_text(value)}" for name, value in given.items()]
        said = followed([sys.executable, "-m", "benchmarks.step", "one", *texts])
        if said.returncode == 0:
            return {"parts": parts} | json.loads(said.stdout.strip().splitlines()[-1])
        facts = {"failed": (said.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]}
        if "out of memory" not in said.stderr:
            break
    return facts


def as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def publish(options: Options, given: dict[str, str]) -> None:
    plan = tokenizers_of(options, given)
    names = {cell.name for cell in plan.cells}
    if {OURS, REFERENCE} <= names:
        cells = [equal_time(plan) if cell.name == REFERENCE else cell for cell in plan.cells]
        plan = plan._replace(cells=cells)
    folder = publish_findings(plan, priors_of(options, given), options.title, Path(options.readme))
    print(f"published: {folder}")


def write_json(file: Path, value: Any) -> None:
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


STAGES: dict[str, Callable[[Options, dict[str, str]], None]] = {
    "tokenizers": tokenizers,
    "priors": priors,
    "speed": speed,
    "publish": publish,
}

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
