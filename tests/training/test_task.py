"""The loop trains whatever is a task: here a network of another kind than the tokenizer, on other data."""

import subprocess
import sys

import bigram
import pytest
import torch
from bigram import SYMBOLS, BigramTask, Chains, open_run, train_bigram
from safetensors.torch import load_file
from workbench import ENV, REPO

from tok1d.runs import Run, RunError
from tok1d.training.doctor import checkup, read_diagnoses
from tok1d.training.train import fit


def in_processes(outputs, die_at: int = 0, count: int = 1, **params) -> int:
    """Train in `count` processes of their own; the exit status."""
    launcher = (
        ["-m", "torch.distributed.run", f"--nproc_per_node={count}", "--standalone"] if count > 1 else []
    )
    given = [f"{name}={value}" for name, value in params.items()]
    command = [sys.executable, *launcher, bigram.__file__, str(outputs), str(die_at), *given]
    path = f"{REPO}:{REPO / 'tests' / 'support'}"
    done = subprocess.run(
        command, env=ENV | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode <= 0, done.stdout + done.stderr
    return done.returncode


def checkpoint(run: Run) -> dict:
    return torch.load(run / "last.ckpt", weights_only=True)


def test_it_learns_is_logged_saved_and_loaded(tmp_path):
    records = []
    run, model = train_bigram(tmp_path, on_log=records.append)
    assert [record["step"] for record in records] == list(range(1, 21))
    first, last = records[0], records[-1]
    assert {"length", "lr", "loss", "accuracy", "guessed", "of", "grad_norm", "skipped"} <= first.keys()
    assert {"grad_norm_embed", "grad_norm_blocks", "grad_norm_head", "loader_wait"} <= first.keys()
    assert first["loss"] > 1.8 > 1.4 > last["loss"] and last["accuracy"] > 0.5
    assert last["of"] == 8 * (last["length"] - 1) and last["guessed"] <= SYMBOLS

    assert not model.training
    saved = checkpoint(run)
    assert saved.keys() == {"model", "ema", "objective", "optimizers", "counts"}
    held = [i for optimizer in saved["optimizers"] for group in optimizer["param_groups"]
            for i in group["params"]]  # fmt: skip
    assert len(held) == len(list(model.parameters()))
    assert run.manifest["data"] == {"train": Chains.fingerprint} and run.manifest["losses"] == {}
    again = train_bigram(tmp_path, on_log=records.append)[1]
    assert len(records) == 20, "it is only loaded"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_killed_it_ends_with_the_same_bits(tmp_path, capsys):
    whole, _ = train_bigram(tmp_path / "whole", dropout=0.1)
    assert in_processes(tmp_path / "killed", die_at=13, dropout=0.1) == -9
    killed, _ = train_bigram(tmp_path / "killed", dropout=0.1)
    assert "from step 10" in capsys.readouterr().out
    mine, theirs = (load_file(run / "model" / "model.safetensors") for run in (whole, killed))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()


def test_two_processes_that_share_its_blocks_compute_what_one_does(tmp_path):
    one, _ = train_bigram(tmp_path / "one", optimizer="adamw")
    assert in_processes(tmp_path / "two", count=2, optimizer="adamw", parallel="fsdp") == 0
    two = Run(tmp_path / "two" / "runs" / "quickstart")
    assert len(two.metrics) == len(one.metrics) == 20
    for mine, theirs in zip(one.metrics, two.metrics, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def test_the_doctor_looks_on(tmp_path):
    run, _ = train_bigram(tmp_path / "well")
    assert checkup(run) == ([], [], 20)

    class Deaf(BigramTask):
        """Whose head hears nothing of what is below it."""

        def build(self, run=None):
            super().build(run)
            self.model.head.register_forward_pre_hook(lambda module, inputs: inputs[0] * 0)

    run, config = open_run(tmp_path / "ill", stop_on="dead-parameters")
    with pytest.raises(
        RunError, match=r"^dead-parameters since step 2: .*no tensor of the embed had.* type muon_lr="
    ):
        fit(run, Deaf(config), Chains())
    assert [diagnosis.name for diagnosis in read_diagnoses(run)] == ["dead-parameters"]


def test_steps_without_a_finite_gradient_send_it_back_then_end_it(tmp_path, capsys):
    class Broken(BigramTask):
        def loss(self, batch, step):
            loss = super().loss(batch, step)
            return loss._replace(value=loss.value * (torch.inf if step >= 12 else 1))

    run, config = open_run(tmp_path, nan_patience=2)
    with pytest.raises(RunError, match=r"^nan: 2 steps in a row.*again.* and another run=NAME"):
        fit(run, Broken(config), Chains())
    assert "back to step 10, from there at 0.3 of the learning rate" in capsys.readouterr().out
    assert checkpoint(run)["counts"]["step"] == 10
