"""Checkpoints that cannot be written, that are damaged, that belong to another network: nothing is lost."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from small_run import SMALL, start
from workbench import ENV, REPO

from tok1d.config.schema import TokenizerConfig, TrainConfig
from tok1d.runs import Run, RunError
from tok1d.training.checkpoints import load_checkpoint, save_checkpoint
from tok1d.training.state import State
from tok1d.training.task import TokenizerTask
from tok1d.training.train import train


def fresh(**params) -> State:
    task = TokenizerTask(TokenizerConfig(**SMALL | params), TrainConfig(optimizer="adamw"))
    task.build()
    return State.new(task, torch.device("cpu"))


@pytest.fixture
def saved(tmp_path):
    """A run folder with checkpoints of steps 1 and 2, and the weights of each."""
    run = Run(tmp_path)
    state = fresh()
    for step in (1, 2):
        state.counts["step"] = step
        torch.nn.init.constant_(state.model.to_codes.bias, step)
        save_checkpoint(run, state)
    return run


@pytest.mark.parametrize("damage", [b"", b"PK half a file", None])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(saved, damage, capsys):
    if damage is None:  # cut short, as by a crash of the machine
        os.truncate(saved / "last.ckpt", (saved / "last.ckpt").stat().st_size // 2)
    else:
        (saved / "last.ckpt").write_bytes(damage)
    state = fresh()
    assert load_checkpoint(saved, state) and state.step == 1
    assert (state.model.to_codes.bias == 1).all()
    said = capsys.readouterr().out
    assert "last.ckpt cannot be continued from (" in said and "from step 1" in said and said.count("\n") == 1


def test_without_any_sound_checkpoint_it_is_one_sentence(saved):
    for name in ("last.ckpt", "previous.ckpt"):
        (saved / name).write_bytes(b"PK")
    with pytest.raises(RunError, match=r"last.ckpt cannot be continued from .*: delete .* to start this run"):
        load_checkpoint(saved, fresh())


def test_a_checkpoint_of_another_network_is_one_sentence(saved):
    with pytest.raises(RunError, match=r"last.ckpt cannot be continued from \(.*\): delete") as caught:
        load_checkpoint(saved, fresh(num_latent_tokens=8))
    assert "\n" not in str(caught.value)
    state = fresh()
    assert load_checkpoint(saved, state) and state.step == 2  # both are still there


def test_no_checkpoint_is_no_error(tmp_path):
    assert not load_checkpoint(Run(tmp_path), fresh())


def test_a_disk_that_fills_up_while_saving(tmp_path):
    """A real file system of 64 MB, filled between the checkpoints of steps 4 and 8."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a file system")
    try:
        run, images, tokenizer, config = start(disk, steps=12, checkpoint_every=4)
        filler = run.path.parent / "filler"

        def fill(record):
            if record["step"] == 6:
                with open(filler, "wb") as file, pytest.raises(OSError):
                    while True:
                        file.write(bytes(1 << 16))
                        file.flush()

        config = config.model_copy(update={"log_every": 1})
        with pytest.raises(
            RunError, match=r"^the checkpoint of step 8 cannot be written to .*: make room"
        ) as e:
            train(run, images, tokenizer, config, on_log=fill)
        assert "\n" not in str(e.value)
        state = fresh()
        assert load_checkpoint(run, state) and state.step == 4
        assert not [path for path in run.path.iterdir() if path.name.endswith(".tmp")]
        filler.unlink()
        train(run, images, tokenizer, config)
        elsewhere, images, tokenizer, config = start(tmp_path / "roomy", steps=12, checkpoint_every=4)
        train(elsewhere, images, tokenizer, config)
        one, other = (load_file(r / "model" / "model.safetensors") for r in (run, elsewhere))
        assert all(torch.equal(one[name], other[name]) for name in one)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_file_too_large_for_its_owner(tmp_path):
    """A quota, by the kernel's limit on a file's size, in a process of its own."""
    code = f"""
import resource, sys
sys.path[:0] = [{str(REPO / "tests/support")!r}, {str(REPO / "tests/training")!r}]
from test_checkpoints import fresh, save_checkpoint, Run
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save_checkpoint(Run({str(tmp_path)!r}), fresh())
"""
    result = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True)
    assert "RunError: the checkpoint of step 0 cannot be written to" in result.stderr
    assert not list(tmp_path.iterdir())
