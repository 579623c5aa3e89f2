"""A process that is killed before one of its changes to a folder, and what becomes of it in a second start.

    python tests/support/killing.py FOLDER COUNT [WORK …]      # COUNT changes, evenly spread; 0: all of them

A change is what Python's audit events tell of: a file opened for writing, a rename, a removal, a new folder.
The process is a fork, killed by SIGKILL right before; `Work.prepare` makes the folder it starts in. Prints a
line of JSON for each change: {"work", "n", "change", "wrong"}, where `wrong` is empty if after one restart
all files are as they are without the kill.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nbformat
import pandas as pd
import torch
import yaml
from evaluating import FAST, finished_run
from evaluating import TINY as EVALUATED
from nbformat.v4 import new_code_cell, new_notebook
from priors import linear_tokenizer
from small_run import start
from workbench import REPO

from tok1d.config.notebooks import GenerateParams
from tok1d.config.parse import parse_notebook
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data
from tok1d.evaluation.card import card_id, protocol
from tok1d.evaluation.evaluate import reconstruct
from tok1d.evaluation.runs import evaluate_run, evaluation_images, load_tokenizer, measure
from tok1d.figures.draw import keep
from tok1d.figures.images import save_images
from tok1d.figures.samples import in_rows
from tok1d.generation.measure import measure_samples
from tok1d.generation.train import open_tokenizer, tokens_of, train_prior
from tok1d.jupyter.report import build_report
from tok1d.runs import Run
from tok1d.sweeps.plan import read_plan
from tok1d.sweeps.publish import BEGIN, END, publish, renew
from tok1d.sweeps.run import run_sweep
from tok1d.system import files
from tok1d.training.train import train

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
PASSING = {
    "git",
    "tok1d",
    "train_seconds",
    "encode_images_per_s",
    "decode_images_per_s",
    "finished",
    "seconds",
    "started",
    "ended",
    "pid",
}
SAID = ("driver.txt", "sweep.log")  # of processes and speeds


# ---- what is killed: each works in the folder it is given, with paths that are the same for every copy ----


def prepare_train() -> None:
    start("outputs", steps=1)  # the decoded images; no run is left
    shutil.rmtree("outputs/runs")


def do_train() -> None:
    """As the kernel of the train notebook does it."""
    run, images, tokenizer, config = start("outputs", steps=4, checkpoint_every=2, log_every=1)
    trained = train(run, images, tokenizer, config)
    run.finish(results=measure(run, trained, evaluation_images(run, "", 16), FAST)["results"])


def prepare_run() -> None:
    run = finished_run("outputs", "a")
    evaluate_run(run, FAST)
    load_data(run.config(DataConfig), 16, run.cache)  # the images of the linear code
    save_images(Path("outputs/runs/a/recon"), torch.zeros(3, 3, 16, 16, dtype=torch.uint8), {})


def do_evaluate() -> None:
    more = FAST.model_copy(update={"metrics": ("psnr",), "linear_code": True, "token_counts": (1, 4)})
    evaluate_run(Run("outputs/runs/a"), more)
    evaluate_run(Run("outputs/runs/a"), FAST.model_copy(update={"eval_images": 3}), "toy-roads")


def do_reconstruct() -> None:
    run = Run("outputs/runs/a")
    evaluate_run(run, FAST.model_copy(update={"metrics": ("psnr",)}), again=False)
    tokenizer, images = load_tokenizer(run), evaluation_images(run, "", 16)
    shown = images.center_crops([0, 1])
    save_images(run / "recon", shown, reconstruct(tokenizer, shown, (1, 4)))


PRIOR = dict(
    outputs="outputs", tokenizer="tokenizer", toy_images=8, toy_val_images=4, prior_width=64,
    prior_depth=1, prior_tokens=3, steps=4, batch_size=6, checkpoint_every=2, log_every=1, samples=4,
    metrics=("psnr",), resamples=0,
)  # fmt: skip


def prepare_generate() -> None:
    linear_tokenizer(Path("tokenizer"))


def do_generate() -> None:
    """As the kernel of the generate notebook does it."""
    params = parse_notebook("generate", PRIOR)
    assert isinstance(params, GenerateParams)
    tokenizer = open_tokenizer(params.prior)
    tokens = tokens_of(tokenizer, params)
    run = Run.open(*params)
    generator = train_prior(run, tokenizer, tokens.train, params)
    measured = measure_samples(run, generator, tokens, params.sample, params.evaluation)
    asked = generator.balanced(4)
    made = generator.decode(generator.ids(asked, params.sample))
    keep(run, "grid", in_rows(made, generator.in_words(asked)), "samples")
    run.finish(results=measured["results"])


def prepare_report() -> None:
    notebook = new_notebook(cells=[new_code_cell("x = 1", execution_count=1)])
    nbformat.write(notebook, "train.ipynb")
    Path("report.html").write_text("old")


def do_report() -> None:
    build_report([Path("train.ipynb")], Path("report.html"))


def prepare_publish() -> None:
    run = finished_run("outputs", "a")
    card = card_id(protocol(evaluate_run(run, FAST)["card"]))
    rows = [{"run": "a", "series": "a", "card": card} | row for row in run.evaluation["results"]]
    (run.path.parent / "figures").mkdir()
    for name in ("quality.png", "quality.pdf"):
        (run.path.parent / "figures" / name).write_text("a figure")
    (run.path.parent / "figures" / "quality.json").write_text('{"drawn": []}')
    (run.path.parent / "sweep_done.json").write_text("{}")
    pd.DataFrame(rows).to_csv(run.path.parent / "results.csv", index=False)
    Path("README.md").write_text(f"{BEGIN}\n{END}\n")
    publish(run.path.parent, "Before", Path("outputs/published"))


def do_publish() -> None:
    publish(Path("outputs/runs"), "After", Path("outputs/published"))
    renew(Path("README.md"), Path("outputs/published"))


SITE = """from parsl import Config, ThreadPoolExecutor
config = Config(executors=[ThreadPoolExecutor(max_threads=1)], usage_tracking=0)
"""  # the runs of a sweep in its driver, so that what they change is seen


def prepare_sweep(after_run: list[str], measured: bool) -> None:
    run = finished_run("outputs", "s0", sweep="tiny")
    if measured:
        evaluate_run(run, FAST)
    evaluation = {"resamples": FAST.resamples, "linear_code": False} if after_run else {}
    what = {
        "params": EVALUATED,
        "seeds": [0],
        "after_run": after_run,
        "evaluation": evaluation,
        "after_sweep": [],
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(what))
    Path("site.py").write_text(SITE)
    Path("notebooks").mkdir()
    shutil.copy(REPO / "notebooks" / "train.ipynb", "notebooks")


def do_sweep() -> None:
    if status := run_sweep(read_plan("tiny.yaml"), Path("site.py")):
        sys.exit(status)


class Work(NamedTuple):
    prepare: Callable[[], None]
    do: Callable[[], None]


WORKS = {
    "train": Work(prepare_train, do_train),
    "generate": Work(prepare_generate, do_generate),
    "evaluate": Work(prepare_run, do_evaluate),
    "reconstruct": Work(prepare_run, do_reconstruct),
    "report": Work(prepare_report, do_report),
    "publish": Work(prepare_publish, do_publish),
    "results": Work(lambda: prepare_sweep([], measured=True), do_sweep),  # what follows the last run
    "sweep": Work(lambda: prepare_sweep(["evaluate"], measured=False), do_sweep),
}


# ---- counting changes, and killing before one ----


def forked(
    folder: Path, do: Callable[[], None], before: Callable[[int, str], None] = lambda n, what: None
) -> int:
    """The status of a fork that does `do` in `folder`; `before` is called for each change there."""
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    status = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        os.chdir(folder)
        (folder / "tmp").mkdir(exist_ok=True)
        tempfile.tempdir = str(folder / "tmp")
        watch(folder, before)
        do()
        status = 0
    finally:
        os._exit(status)


def watch(folder: Path, before: Callable[[int, str], None]) -> None:
    count = 0

    def change(what: str) -> None:
        nonlocal count
        count += 1
        before(count, what)

    def hook(event: str, arguments: tuple) -> None:
        path = arguments[0] if arguments else None
        changes = event in CHANGES or (event == "open" and arguments[2] & WRITING)
        if changes and isinstance(path, str | bytes | os.PathLike):
            place = os.path.abspath(os.fsdecode(path))
            if place.startswith(f"{folder}/"):
                change(f"{event} {os.path.relpath(place, folder)}")

    def exchange(one: Path, other: Path, swap: Callable = files.exchange) -> bool:
        change(f"exchange {one.name}")  # by the C library, of which no event tells
        return swap(one, other)

    files.exchange = exchange
    sys.addaudithook(hook)


def killed_before(wanted: int) -> Callable[[int, str], None]:
    def before(n: int, what: str) -> None:
        if n == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return before


# ---- what there is afterwards ----


def contents(folder: Path) -> dict[str, object]:
    """All files and folders by name, without what differs from one time to the next."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "tensorboard/" not in name and ".parsl" not in name:
            found[name] = "a folder" if path.is_dir() else content(path)
    return found


def content(path: Path) -> object:
    if path.suffix == ".ckpt":
        kept = torch.load(path, weights_only=True)
        return {k: v.tolist() for k, v in kept["ema"].items()} | {"step": kept["counts"]["step"]}
    if path.suffix == ".json":
        return lasting(json.loads(path.read_text()))
    if path.name == "timings.jsonl":
        return "seconds"
    if path.name in SAID:
        return "what is said"
    if path.stem == "results":
        rows = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        return rows.drop(columns=[name for name in rows if name in PASSING]).to_json()
    return path.read_bytes()


def lasting(value: object) -> object:
    if isinstance(value, dict):
        return {name: lasting(each) for name, each in value.items() if name not in PASSING}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def main(name: str, folder: Path, count: int) -> None:
    work, start_from = WORKS[name], folder / "start"
    place = folder / "place"  # always the same one: paths are in files
    place.mkdir(parents=True)
    assert forked(place, work.prepare) == 0, "it cannot be prepared"
    place.rename(start_from)

    def again(before: Callable[[int, str], None] = lambda n, what: None) -> int:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(start_from, place, symlinks=True)
        return forked(place, work.do, before)

    log = folder / "changes"
    assert again(lambda n, what: log.open("a").write(what + "\n")) == 0, (
        "it does not even work without a kill"
    )
    wanted, changes = contents(place), log.read_text().splitlines()
    chosen = range(1, len(changes) + 1)
    if 0 < count < len(changes):
        chosen = sorted({round((i + 0.5) * len(changes) / count) for i in range(count)})
    for n in chosen:
        assert again(killed_before(n)) == signal.SIGKILL
        status = forked(place, work.do)
        found = contents(place)
        names = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        wrong = names + ([f"status {status} after the restart"] if status else [])
        print(json.dumps({"work": name, "n": n, "change": changes[n - 1], "wrong": wrong}), flush=True)


if __name__ == "__main__":
    for each in sys.argv[3:] or WORKS:
        main(each, Path(sys.argv[1]).resolve() / each, int(sys.argv[2]))
