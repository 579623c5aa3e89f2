"""The published results of a GPU, in small on the CPU: slices, one of them killed, change nothing."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from small_run import start
from sweeping import processes, until
from workbench import ENV, REPO, TINY

from benchmarks.gpu_findings import PAIRS, over_seeds
from benchmarks.gpu_results import (
    OURS,
    REFERENCE,
    Options,
    ending_after,
    make_tokenizer,
    priors_of,
    tokenizers_of,
)
from tok1d.config.parse import parse_train
from tok1d.distributed import Stopped
from tok1d.models.encoder import Encoder
from tok1d.runs import TRY_AGAIN, Run
from tok1d.sweeps.plan import Cell, read_plan
from tok1d.sweeps.publish import BEGIN, END
from tok1d.training.train import train

MEASURED = dict(metrics="psnr", resamples=20, linear_code=False)
SWEEP = {
    "params": TINY
    | MEASURED
    | {"elastic": False, "adversarial_weight": 0.1, "log_every": 5, "checkpoint_every": 20},
    "cells": [
        {"run": OURS},
        {"run": "elastic", "elastic": True, "steps": 300, "adversarial_weight": 0},
        {
            "run": REFERENCE, "decoder_head": "cnn", "cnn_channels": 32, "cnn_multipliers": "1,1,1,1",
            "steps": 100, "cnn_blocks": 1, "discriminator_start": 50, "warmup_steps": 50,
        },
    ],
    "after_run": [],
    "after_sweep": [],
}  # fmt: skip
PRIORS = {
    "notebook": "generate",
    "params": MEASURED | dict(
        tokenizer=f"outputs/tiny/{OURS}", prior_width=32, prior_depth=1, prior_tokens=4, steps=4,
        batch_size=4, samples=4, guidance=1, condition="none", toy_images=8, toy_val_images=4,
    ),
    "grid": {"prior": ["masked"]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path):
    yield
    for process in processes(str(tmp_path)):
        process.kill()


def words(folder: Path, **options) -> list[str]:
    given = dict(
        outputs=folder / "outputs", sweep=folder / "tiny.yaml", priors=folder / "priors.yaml", sizes="nano",
        speed_batch=4, readme=folder / "README.md", title="Tiny",
    )  # fmt: skip
    return [
        sys.executable,
        "-m",
        "benchmarks.gpu_results",
        *(f"{k}={v}" for k, v in (given | options).items()),
    ]


def slice_of(folder: Path, **options) -> subprocess.Popen:
    log = open(folder / "log", "a", encoding="utf-8")  # noqa: SIM115
    return subprocess.Popen(words(folder, **options), cwd=REPO, env=ENV, stdout=log, stderr=log)


def test_slices_of_which_one_is_killed_end_complete_and_with_the_same_bits(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SWEEP))
    (tmp_path / "priors.yaml").write_text(yaml.safe_dump(PRIORS))
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    ours, elastic, reference = (
        Run(tmp_path / "outputs/tiny" / name) for name in (OURS, "elastic", REFERENCE)
    )

    killed = slice_of(tmp_path)
    until(lambda: len(elastic.metrics) > 6, 400)
    killed.kill()
    assert killed.wait(10) == -signal.SIGKILL
    finished = (ours / "done.json").stat().st_mtime_ns
    assert slice_of(tmp_path, slice=2).wait(400) == TRY_AGAIN
    assert not elastic.done
    assert slice_of(tmp_path).wait(900) == 0, (tmp_path / "log").read_text()

    said = (tmp_path / "log").read_text()
    steps = [int(line.split()[-1]) for line in said.splitlines() if f"continuing {elastic.path}" in line]
    assert steps and 20 <= steps[0] <= steps[-1] < 300  # the next slice went on from there
    assert (ours / "done.json").stat().st_mtime_ns == finished
    plan = read_plan(tmp_path / "tiny.yaml")
    params = next(cell for cell in plan.cells if cell.name == "elastic").params | {
        "outputs": str(tmp_path / "plain")
    }
    plain = Cell("elastic", params, parse_train(params))
    make_tokenizer(plain)
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (elastic / name).read_bytes() == (plain.run / name).read_bytes(), name
    assert numbers(elastic) == numbers(plain.run)
    check_published(tmp_path, reference)


def test_a_slice_ends_by_itself_with_a_checkpoint(tmp_path):
    run, *rest = start(tmp_path, steps=100_000, checkpoint_every=100_000)
    with pytest.raises(Stopped), ending_after(1):
        train(run, *rest)
    assert torch.load(run / "last.ckpt", weights_only=True)["counts"]["step"] > 0


def test_the_sweeps_of_a_gpu_are_whole():
    """Every pair that is compared is there; random and pretrained encoders are the same network."""
    plan = tokenizers_of(Options(weights="elsewhere"), {"data": "a", "val_data": "b"})
    cells = {cell.name: cell for cell in plan.cells}
    assert {name for pair in PAIRS for name in pair} == cells.keys()
    shapes = [cells[name].of_tokenizer.tokenizer for name in ("random-s1", "dinov2-s1")]
    assert Encoder(shapes[0]).state_dict().keys() == Encoder(shapes[1]).state_dict().keys()
    assert cells["dinov2-s1"].of_tokenizer.train.encoder_checkpoint == "elsewhere/dinov2_vits14_imgfocus.pth"
    assert all(cell.data.data == "a" and cell.of_tokenizer.train.seed in range(3) for cell in plan.cells)
    (tokenizer,) = {cell.params["tokenizer"] for cell in priors_of(Options(outputs="o"), {}).cells}
    assert tokenizer == f"o/{plan.folder.name}/{OURS}"


def test_a_difference_over_seeds_is_sure_where_its_interval_leaves_out_zero():
    rows = [
        {
            "first": f"random-s{seed}",
            "second": f"dinov2-s{seed}",
            "num_tokens": 64,
            "psnr": 1 + seed / 10,
            "rfid": rfid,
        }
        for seed, rfid in enumerate((-1.0, 4.0, -2.0))
    ]
    (row,) = over_seeds(rows)
    assert row["psnr"] == pytest.approx(1.1) and row["seeds"] == 3 and row["sure"] == ["psnr"]
    assert row["first"] == "random" and row["second"] == "dinov2"


def numbers(run: Run) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.endswith("_per_s")} for row in run.evaluation["results"]]


def check_published(folder: Path, reference: Run) -> None:
    published = folder / "outputs/published/tiny"
    texts = [path.read_text() for path in published.rglob("*") if path.suffix in (".json", ".csv", ".yaml")]
    assert len(texts) > 10 and not any(str(folder) in text for text in texts)
    assert (published / "quality.png").exists() and not list(published.glob("encoders.*"))
    assert {path.name for path in (published / "runs").iterdir()} == {OURS, "elastic", REFERENCE, "masked"}
    found = json.loads((published / "findings.json").read_text())
    compared = {(row["first"], row["second"]) for row in found["comparisons"]}
    assert compared == {(OURS, "elastic"), (REFERENCE, OURS)}
    assert found["equal_time"]["steps"] == reference.params["steps"] == reference.metrics[-1]["step"]
    assert (
        reference.params["discriminator_start"]
        == reference.params["warmup_steps"]
        < reference.params["steps"]
    )
    eager, half = found["speed"]["rows"]
    assert eager["times eager float32"] == 1 and half["images/s"] > 0 and len(half["longest"]) == 10
    assert found["priors"]["masked"]["results"] and found["training"]["elastic"]["doctor"]
    assert "**Tiny**, 12 images at 16 pixels" in (folder / "README.md").read_text()
