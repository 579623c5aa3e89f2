"""Images that are decoded for every batch anew: the same batches as from the cache."""

import os

import pytest
import torch

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data


def numbers(batch: torch.Tensor) -> list[int]:
    """Which of the plain images a batch holds."""
    return batch[:, 0, 0, 0].tolist()


def kept(data, cache):
    return load_data(DataConfig(data=data, val_data="toy-roads", toy_val_images=1), 16, cache)[0]


def streamed(data, cache, **params):
    config = DataConfig(data=data, val_data="toy-roads", toy_val_images=1, decode="stream", **params)
    return load_data(config, 16, cache)


def test_streamed_batches_are_those_of_the_cache(photos, tmp_path):
    root, cache = photos(10), tmp_path / "cache"
    photos(3, size=(30, 47), start=10)
    images, val = streamed(root, cache)
    assert len(list(cache.iterdir())) == 1 and len(val) == 1  # the validation images are kept
    wanted = kept(root, cache)
    assert images.names == wanted.names and (images[12] == wanted[12]).all()
    assert torch.equal(images.center_crops(range(13)), wanted.center_crops(range(13)))
    for step in (0, 1, 7):
        assert torch.equal(images.train_batch(step, 6, 3), wanted.train_batch(step, 6, 3))
        assert torch.equal(images.train_batch(step, 6, 3, 1, 2), wanted.train_batch(step, 6, 3, 1, 2))


def test_streamed_toy_roads(tmp_path):
    config = DataConfig(toy_images=6, toy_val_images=1)
    wanted, _ = load_data(config, 16, tmp_path)
    images, _ = load_data(config.model_copy(update={"decode": "stream"}), 16, tmp_path)
    assert (
        torch.equal(images.train_batch(0, 6, 0), wanted.train_batch(0, 6, 0))
        and images.labels == wanted.labels
    )


def test_streamed_fingerprint_is_of_names_and_stamps(photos, tmp_path):
    root, cache = photos(3), tmp_path / "cache"
    before = streamed(root, cache)[0].fingerprint
    assert before == streamed(root, cache)[0].fingerprint and before.startswith("stamps-")
    os.utime(root / "b.png", (1, 1))
    assert streamed(root, cache)[0].fingerprint != before


def test_an_unreadable_streamed_image_is_replaced_by_the_next(plain, tmp_path):
    root = plain(40)
    for name in ("003", "004", "039"):
        (root / f"{name}.png").write_text("no image")
    images, _ = streamed(root, tmp_path / "cache", max_unreadable=0.1)
    wanted = [{3: 5, 4: 5, 39: 0}.get(i, i) for i in range(40)]
    assert [numbers(images.center_crops([i]))[0] for i in range(40)] == wanted
    assert sorted(numbers(images.train_batch(0, 40, seed=0))) == sorted(wanted)
    assert images.unreadable == {f"{name}.png": "not an image" for name in ("003", "004", "039")}
    few, _ = streamed(root, tmp_path / "cache", max_unreadable=0.05)
    with pytest.raises(ConfigError, match=r"3 of 40 images of .* cannot be read.* type max_unreadable=0.08"):
        few.train_batch(0, 40, seed=0)
