"""Batches: every image once an epoch, and a pure function of the seed and the step."""

import hashlib

import pytest
import torch
from caches import load, run


def numbers(batch: torch.Tensor) -> list[int]:
    """Which of the plain images a batch holds; all of a crop must be of that image."""
    assert (batch == batch[:, :1, :1, :1]).all()
    return batch[:, 0, 0, 0].tolist()


def test_batches_are_all_center_crops_in_order(plain, tmp_path):
    images = load(plain(7), tmp_path / "cache")
    assert [numbers(batch) for batch in images.batches(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [numbers(batch) for batch in images.batches(3, limit=4)] == [[0, 1, 2], [3]]
    assert [numbers(batch) for batch in images.batches(3, limit=99)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert next(images.batches(3)).shape == (3, 3, 16, 16) and next(images.batches(3)).dtype == torch.uint8


def test_every_epoch_sees_every_image_once(plain, tmp_path):
    images = load(plain(7), tmp_path / "cache")
    seen = [n for step in range(14) for n in numbers(images.train_batch(step, 3, seed=0))]
    epochs = [seen[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3  # in another order each time


def test_batch_larger_than_the_data(plain, tmp_path):
    images = load(plain(3), tmp_path / "cache")
    assert sorted(numbers(images.train_batch(0, 15, seed=0))) == sorted(5 * [0, 1, 2])


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_parts_of_all_processes_are_the_batch_of_one(photos, tmp_path, world):
    images = load(photos(10), tmp_path / "cache")
    for step in (0, 3):
        whole = images.train_batch(step, 12, seed=5)
        for rank in range(world):
            assert torch.equal(images.train_batch(step, 12, 5, rank, world), whole[rank::world])


BATCHES = """
images, _ = load_data(config, 16, sys.argv[2])
print(*(hashlib.sha256(images.train_batch(s, 4, 7).numpy().tobytes()).hexdigest() for s in (9, 0, 2)))
"""


def test_batch_is_a_pure_function_of_seed_and_step(photos, tmp_path):
    root = photos(6)
    images = load(root, tmp_path / "cache")

    def digest(step, seed=7):
        return hashlib.sha256(images.train_batch(step, 4, seed).numpy().tobytes()).hexdigest()

    here = [digest(step) for step in range(10)]
    there = run(BATCHES, root, tmp_path / "elsewhere", check=True).stdout.split()
    assert there == [here[9], here[0], here[2]]
    assert [digest(step) for step in reversed(range(10))] == here[::-1]  # whatever was drawn before
    assert len(set(here)) == 10 and digest(0, seed=8) not in here
