"""A run survives anything: killed, interrupted, rerun; and the same parameters give the same run."""

import json
import random
import shutil
import signal
import subprocess
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file
from small_run import start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from workbench import ENV, REPO, TINY, command, train_tiny

from tok1d.config.fields import ConfigError
from tok1d.config.schema import RunConfig, TrainConfig
from tok1d.runs import Run, RunError
from tok1d.system.files import replacing
from tok1d.training.optim import set_learning_rate
from tok1d.training.task import sample_num_tokens
from tok1d.training.train import train

LONG = dict(steps=150, checkpoint_every=10)  # long enough to be killed on the way


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run."""
    outputs = tmp_path_factory.mktemp("finished")
    result = train_tiny(outputs, **LONG)
    assert result.returncode == 0, result.stdout + result.stderr
    return Run(outputs / "runs" / "quickstart")


def start_and_signal(outputs, at_step: int, number: int) -> int | None:
    """Start the long run and, once `at_step` is logged, signal it (SIGKILL: every process of it)."""
    process = subprocess.Popen(
        command("train", outputs, **TINY | LONG),
        cwd=REPO,
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = outputs / "runs" / "quickstart" / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) * TINY["log_every"] >= at_step:
            family = psutil.Process(process.pid)
            for member in (
                [*family.children(recursive=True), family] if number == signal.SIGKILL else [family]
            ):
                member.send_signal(number)
            break
        time.sleep(0.01)
    return process.wait(timeout=120)


def test_killed_then_interrupted_it_ends_with_the_same_bits(finished, tmp_path):
    """SIGTERM, as a cluster sends it: a checkpoint at that step, the notebook so far, status 75."""
    killed, interrupted = random.randrange(5, 70), random.randrange(90, 120)
    print(f"killed after step {killed}, interrupted after step {interrupted}")
    run = Run(tmp_path / "runs" / "quickstart")
    assert start_and_signal(tmp_path, killed, signal.SIGKILL) == -signal.SIGKILL
    assert not run.done
    assert start_and_signal(tmp_path, interrupted, signal.SIGTERM) == 75
    saved = torch.load(run / "last.ckpt", weights_only=True)["counts"]["step"]
    assert saved >= interrupted and not run.done
    assert (run / "train.failed.ipynb").exists()
    result = train_tiny(tmp_path, **LONG)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "continuing" in result.stdout
    assert_same_run(run, finished)
    assert not (run / "train.failed.ipynb").exists()


def assert_same_run(run: Run, other: Run) -> None:
    mine, theirs = (load_file(r / "model" / "model.safetensors") for r in (run, other))
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name
    assert (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


def test_rerunning_a_finished_run_does_nothing_and_says_so(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    started = time.monotonic()
    result = train_tiny(finished.path.parent.parent, **LONG)
    assert result.returncode == 0 and "is finished, nothing to do" in result.stdout
    assert time.monotonic() - started < 5
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")} == before


def test_a_finished_run_is_no_run_of_other_parameters(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    for name, value in dict(num_latent_tokens=2, steps=151, seed=1, toy_images=41).items():
        result = train_tiny(finished.path.parent.parent, **LONG | {name: value})
        assert result.returncode == 1 and f"was started with {name}=" in result.stderr, result.stdout
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")} == before


def test_a_finished_run_says_where_it_came_from(finished):
    manifest = finished.manifest
    assert manifest["git"] is None or len(manifest["git"].split("+")[0]) == 40
    assert {"torch", "timm", "python"} <= manifest["versions"].keys() and all(manifest["versions"].values())
    assert manifest["seed"] == 0 and len(manifest["data"]["train"]) == 16 and manifest["train_seconds"] > 0
    assert manifest["hardware"]["cpu"] and manifest["hardware"]["cores"] > 0
    assert finished.params["steps"] == 150 and json.loads((finished / "done.json").read_text())["results"]


def test_a_folder_of_other_parameters_is_not_continued(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "runs" / "quickstart")
    (tmp_path / "runs" / "quickstart" / "done.json").unlink()
    result = train_tiny(tmp_path, **LONG | {"lr": 0.02})
    assert result.returncode == 1 and "lr=0.001, not 0.02: type another run=NAME" in result.stderr


def test_one_process_at_a_time(tmp_path):
    with Run(tmp_path).lock(), pytest.raises(RunError, match="by another process"), Run(tmp_path).lock():
        pass
    with Run(tmp_path).lock():  # free again
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(OSError), replacing(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise OSError("no space left on device")
    assert (tmp_path / "x").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_start_refuses_changed_parameters_but_not_free_ones(tmp_path):
    config = RunConfig(outputs=str(tmp_path))
    Run.open(config, TrainConfig())
    Run.open(config, TrainConfig(checkpoint_every=7))
    with pytest.raises(ConfigError, match=r"seed=0, not 1"):
        Run.open(config, TrainConfig(seed=1))


def test_learning_rate_warms_up_and_ends_at_0():
    config = TrainConfig(steps=100, warmup_steps=10)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates = []
    for step in range(100):
        set_learning_rate([optimizer], step, config)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == 1.0 and 0 < rates[-1] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_token_counts_of_a_step_are_a_function_of_seed_and_step():
    from tok1d.config.schema import TokenizerConfig

    elastic, config = TokenizerConfig(encoder="vit", num_latent_tokens=64), TrainConfig(steps=1000)
    counts = [sample_num_tokens(step, elastic, config) for step in range(1000)]
    assert set(counts[:200]) == {64} and set(counts[200:]) == {1, 2, 4, 8, 16, 32, 64}
    assert counts == [sample_num_tokens(step, elastic, config) for step in range(1000)]
    assert counts != [
        sample_num_tokens(s, elastic, config.model_copy(update={"seed": 1})) for s in range(1000)
    ]
    assert sample_num_tokens(999, TokenizerConfig(elastic=False, num_latent_tokens=32), config) == 32
    linear = TokenizerConfig(encoder="linear", num_latent_tokens=64)
    counts = [sample_num_tokens(step, linear, config) for step in range(1000)]
    assert set(counts[:100]) == {1, 2, 4, 8, 16, 32, 64} and counts.count(64) > 3 * counts.count(1)


def events_of(run: Run) -> dict[int, float]:
    """What TensorBoard shows of `psnr`, by step."""
    files = EventAccumulator(str(run / "tensorboard")).Reload()
    return {event.step: event.value for event in files.Scalars("psnr")}


def test_tensorboard_shows_the_records_also_of_a_run_that_was_continued(tmp_path):
    run, images, tokenizer, config = start(tmp_path, steps=8, log_every=1, checkpoint_every=4)

    def stop(record: dict[str, float]) -> None:
        if record["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, images, tokenizer, config, on_log=stop)
    assert list(events_of(run)) == list(range(1, 7))
    train(run, images, tokenizer, config)  # from step 4
    assert list(run.path.glob("tensorboard/*")) and len(list(run.path.glob("tensorboard/*"))) == 2
    wanted = {record["step"]: record["psnr"] for record in run.metrics}
    assert list(wanted) == list(range(1, 9)) and events_of(run) == pytest.approx(wanted)
