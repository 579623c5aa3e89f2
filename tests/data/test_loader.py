"""The loader: every step's images, in parts, ahead of time, and nothing left running."""

import threading
import time

import pytest
import torch

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig, TrainConfig
from tok1d.data.dataset import load_data
from tok1d.data.loader import Loader


@pytest.fixture
def images(photos, tmp_path):
    config = DataConfig(data=photos(10), val_data="toy-roads", toy_val_images=1)
    return load_data(config, 16, tmp_path / "cache")[0]


def config(**params) -> TrainConfig:
    return TrainConfig(**{"batch_size": 12, "steps": 8, "seed": 5} | params)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    for thread in loader_threads():
        thread.join(2)
    assert not loader_threads()


@pytest.mark.parametrize(("world", "grad_accum_steps"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 4)])
def test_parts_of_all_processes_are_the_batch_of_one(images, world, grad_accum_steps):
    for step in (0, 1, 5):
        parts = []
        for rank in range(world):
            with Loader(
                images, config(grad_accum_steps=grad_accum_steps), "cpu", rank, world, start=step
            ) as loader:
                parts += loader.parts(step)
        whole = images.train_batch(step, 12, 5)
        assert len(parts) == world * grad_accum_steps and {len(part) for part in parts} == {
            len(whole) // len(parts)
        }
        assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)
        assert parts[0].dtype == torch.uint8 and parts[0].is_contiguous()


def test_any_order_of_steps(images):
    with Loader(images, config(), "cpu", start=3) as loader:
        for step in (3, 4, 1, 2, 2, 7, 0, 99):
            (part,) = loader.parts(step)
            assert torch.equal(part, images.train_batch(step, 12, 5)), step


def test_two_steps_are_read_ahead_and_no_more(images, monkeypatch):
    read, real = [], type(images).train_batch
    monkeypatch.setattr(
        type(images), "train_batch", lambda *args, **kwargs: read.append(args[1]) or real(*args, **kwargs)
    )

    def after(*steps: int) -> list[int]:
        for step in steps:
            loader.parts(step)
        time.sleep(0.2)
        return sorted(set(read))

    with Loader(images, config(), "cpu") as loader:
        assert after() == [0, 1, 2]
        assert after(0) == [0, 1, 2]
        assert after(1) == [0, 1, 2, 3]
        assert after(2, 3, 4, 5, 6, 7) == list(range(8))  # none after the last step


def test_what_goes_wrong_in_the_thread_reaches_the_caller(images, monkeypatch):
    def broken(self, step, *args, **kwargs):
        raise OSError(f"the disk is gone at step {step}")

    with Loader(images, config(), "cpu") as loader:
        loader.parts(0)
        monkeypatch.setattr(type(images), "train_batch", broken)
        with pytest.raises(OSError, match="the disk is gone at step 5"):
            loader.parts(5)
        monkeypatch.undo()
        assert len(loader.parts(5)) == 1  # asked again, it is read again


def test_waiting_is_counted(images, monkeypatch):
    real = type(images).train_batch

    def slow(*args, **kwargs):
        time.sleep(0.1)
        return real(*args, **kwargs)

    monkeypatch.setattr(type(images), "train_batch", slow)
    with Loader(images, config(), "cpu") as loader:
        loader.parts(0)
        first = loader.waited
        time.sleep(0.5)
        loader.parts(1)
        assert 0.05 < first < 0.4 and loader.waited - first < 0.05


def test_closing_waits_for_nothing(images, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(type(images), "train_batch", lambda *args, **kwargs: release.wait(20))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Loader(images, config(grad_accum_steps=3), "cpu"):
        raise KeyboardInterrupt
    assert time.monotonic() - began < 1
    release.set()


def test_a_batch_that_cannot_be_divided(images):
    with pytest.raises(ConfigError) as caught:
        Loader(images, config(grad_accum_steps=3), "cpu", world=8)
    assert str(caught.value) == (
        "batch_size=12 is no multiple of 8 processes times grad_accum_steps=3: type batch_size=24"
    )
