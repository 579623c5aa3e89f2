"""The loader's benchmark compares the same work: both sides' pixels and numbers of images."""

import pytest
import torch
from PIL import Image

from benchmarks import loader


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data/one class").mkdir(parents=True)
    loader.draw_scene(tmp_path / "data/one class", 5, different=2)
    return tmp_path / "data"


def test_files_and_pixels(data, tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    files = sorted((data / "one class").iterdir())
    assert len(files) == 5 and {Image.open(file).size for file in files} == {(1280, 720)}
    assert files[0].read_bytes() == files[2].read_bytes() != files[1].read_bytes()
    loader.assert_same_pixels(data, tmp_path / "cache")
    monkeypatch.setattr("tok1d.data.dataset.center_crop", lambda pixels, size: pixels[:size, :size])
    with pytest.raises(SystemExit, match="the pixels differ"):
        loader.assert_same_pixels(data, tmp_path / "cache")
    torch.set_num_threads(threads)


def test_a_folder_without_jpegs(tmp_path):
    with pytest.raises(SystemExit, match=r"there are no \.jpg files in .*: type python -m benchmarks.loader"):
        loader.main(str(tmp_path))
