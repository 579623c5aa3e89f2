"""What `benchmarks.gpu_results` publishes beside a sweep's table and figures of numbers, in findings.json:

comparisons   of pairs of runs, each number's difference with its interval over the same images; `sure` names
              those whose interval leaves out 0
over_seeds    of pairs with several seeds the mean difference, and Student's interval
training      seconds, images/s, loader wait of each run, and what the doctor says of it
priors        the evaluation of each prior
speed         a step by network size, see `benchmarks.step`
equal_time    how many steps the reference was given, and why

And of each run parameters, manifest and records, in runs/. No picture of a frame: these may not be
redistributed.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from tok1d.config.registry import NUMBERS
from tok1d.evaluation.metrics.bootstrap import interval_over_seeds
from tok1d.evaluation.runs import compare
from tok1d.figures.draw import FIGURES, draw_figure
from tok1d.runs import Run, RunError
from tok1d.sweeps.after import after_sweep
from tok1d.sweeps.plan import Plan
from tok1d.sweeps.publish import PUBLISHED, around_results, publish, renew, without_folders
from tok1d.system.files import replacing
from tok1d.training.doctor import complaints

PAIRS = (  # the second minus the first
    *((rf"fixed-{count}", "elastic") for count in (16, 32, 64, 128, 256)),
    *((f"random-s{seed}", f"dinov2-s{seed}") for seed in range(3)),
    ("reference", "fixed-64"),
    ("vq-64", "fixed-64"),
)
METRICS = ("psnr", "rfid")  # that figures against the number of tokens are drawn of
KEPT = ("params.yaml", "manifest.json", "metrics.jsonl", "timings.jsonl", "diagnoses.json")


def publish_findings(plan: Plan, priors: Plan, title: str, readme: Path) -> Path:
    """Everything of a sweep whose runs are finished; returns the folder. Raises `RunError`."""
    around_results(readme)  # before anything is written
    left = [cell.run.path for cell in (*plan.cells, *priors.cells) if not cell.run.done]
    if left:
        raise RunError(f"{left[0]} is not finished: type the same without 'publish' first")
    published = readme.parent / PUBLISHED
    after_sweep(plan, {})
    runs = {cell.name: cell.run for cell in plan.cells}
    draw_numbers(list(runs.values()), plan.folder / "figures")
    found = findings(plan, runs, [cell.run for cell in priors.cells])
    folder = publish(plan.folder, title, published, pictures=False)
    with replacing(folder / "runs") as temporary:
        for run in (*runs.values(), *(cell.run for cell in priors.cells)):
            copy_records(run, temporary / run.name)
    with replacing(folder / "findings.json") as temporary:
        text = json.dumps(found, indent=1, ensure_ascii=False)
        temporary.write_text(without_folders(text) + "\n", encoding="utf-8")
    renew(readme, published)
    return folder


def draw_numbers(runs: list[Run], folder: Path) -> None:
    """The figures without pictures, those that have one of each metric."""
    measured = [name for name in METRICS if all(name in run.evaluation["results"][0] for run in runs)]
    with contextlib.redirect_stdout(io.StringIO()) as said:  # here nobody can see a figure
        for name, kind in FIGURES.items():
            if not kind.images and name != "guidance":
                for metric in measured if "metric" in kind.options else measured[:1]:
                    draw_figure(name, runs, folder, metric=metric)
    print(*(line for line in said.getvalue().splitlines() if "not " in line), sep="\n")


def findings(plan: Plan, runs: dict[str, Run], priors: list[Run]) -> dict[str, Any]:
    comparisons = []
    for first, second in PAIRS:
        if first in runs and second in runs:
            for row in compare(runs[first], runs[second], plan.cells[0].of_tokenizer.evaluation):
                comparisons.append({"first": first, "second": second} | row | {"sure": sure(row)})
    return {
        "comparisons": comparisons,
        "over_seeds": over_seeds(comparisons),
        "training": {name: training_of(run) for name, run in runs.items()},
        "priors": {run.name: run.evaluation for run in priors},
        "speed": read(plan.folder / "speed.json"),
        "equal_time": read(plan.folder / "equal_time.json"),
    }


def sure(row: dict[str, Any]) -> list[str]:
    """The numbers whose interval leaves out 0."""
    ends = {name: row.get(f"{name}_interval") for name in row}
    return [name for name, interval in ends.items() if interval and interval[0] * interval[1] > 0]


def over_seeds(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of `random-s0` … against `dinov2-s0` …: a row for each number of tokens."""
    groups = defaultdict(list)
    for row in comparisons:
        if seeded := re.fullmatch(r"(.+)-s\d+", row["first"]):
            groups[seeded[1], row["second"].rsplit("-", 1)[0], row["num_tokens"]].append(row)
    found = []
    for (first, second, count), rows in groups.items():
        if len(rows) > 1:
            row = {"first": first, "second": second, "num_tokens": count, "seeds": len(rows)}
            for name in (name for name in NUMBERS if all(name in each for each in rows)):
                values = np.array([each[name] for each in rows])
                row |= {name: float(values.mean()), f"{name}_interval": list(interval_over_seeds(values))}
            found.append(row | {"sure": sure(row)})
    return found


def training_of(run: Run) -> dict[str, Any]:
    """How fast it was, and what the doctor says."""
    timings = run.timings[1:] or run.timings  # compilation is in the first
    medians = {
        name: statistics.median(record[name] for record in timings)
        for name in ("images_per_second", "loader_wait")
    }
    return {"seconds": run.manifest["train_seconds"]} | medians | {"doctor": complaints(run)[0]}


def copy_records(run: Run, folder: Path) -> None:
    """Without names of this machine's folders."""
    folder.mkdir(parents=True)
    for name in KEPT:
        if (run / name).exists():
            text = without_folders((run / name).read_text(encoding="utf-8"))
            (folder / name).write_text(text, encoding="utf-8")


def read(file: Path) -> Any:
    """{} where it was not made."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
