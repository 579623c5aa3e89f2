from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """`photos(3)` writes a.png, b.png, c.png of random pixels and returns their folder."""

    def write(count: int, folder: str = "photos", size: tuple[int, int] = (40, 30), start: int = 0) -> Path:
        where = tmp_path / folder
        where.mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(where / f"{chr(97 + i) if i < 26 else f'z{i:03}'}.png")
        return where

    return write


@pytest.fixture
def plain(tmp_path):
    """`plain(7)`: seven 24 x 16 images, number i all of grey value i."""

    def write(count: int) -> Path:
        (tmp_path / "plain").mkdir()
        for i in range(count):
            Image.new("RGB", (24, 16), (i, i, i)).save(tmp_path / f"plain/{i:03}.png")
        return tmp_path / "plain"

    return write
