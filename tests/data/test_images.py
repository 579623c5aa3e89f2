"""One file in, upright RGB out: every row of the table in `tok1d/data/decode.py`, and crops."""

import hashlib
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data, to_float, to_uint8
from tok1d.data.decode import LONGEST, Unreadable, random_crop_flip, read_image, resize

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (12, 20, 3), np.uint8)
GRAY = COLOR[..., 0]
MASK = (
    np.where(np.arange(20) < 10, 255, 0).astype(np.uint8)[None].repeat(12, 0)
)  # the right half is transparent


def read(path) -> np.ndarray:
    pixels = np.asarray(read_image(path)[0])
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    return pixels


def saved(path, image, **options) -> np.ndarray:
    image.save(path, **options)
    return read(path)


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG by hand: kinds that Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def test_plain_rgb_and_its_hash(tmp_path):
    path = tmp_path / "a.png"
    assert (saved(path, Image.fromarray(COLOR)) == COLOR).all()
    assert read_image(path)[1] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_grey(tmp_path):
    assert (saved(tmp_path / "a.png", Image.fromarray(GRAY)) == GRAY[..., None]).all()
    assert set(np.unique(saved(tmp_path / "b.png", Image.fromarray(GRAY).convert("1")))) == {0, 255}


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_range(tmp_path, suffix):
    deep = np.full((8, 8), 32768, np.uint16)
    deep[0, :4] = 0, 65535, 257, 12850
    got = saved(tmp_path / f"a.{suffix}", Image.fromarray(deep))
    assert got[0, :5, 0].tolist() == [0, 255, 1, 50, 128] and (got == got[..., :1]).all()


def test_16_bit_color(tmp_path):
    deep = COLOR.astype(np.uint16) * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    (tmp_path / "a.png").write_bytes(png(20, 12, 16, 2, rows))
    assert (read(tmp_path / "a.png") == COLOR).all()


def test_transparent_becomes_white(tmp_path):
    over_white = np.where(MASK[..., None] > 0, COLOR, 255)
    assert (saved(tmp_path / "rgba.png", Image.fromarray(np.dstack([COLOR, MASK]))) == over_white).all()
    grey_alpha = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(MASK)])
    assert (saved(tmp_path / "la.png", grey_alpha) == np.where(MASK > 0, GRAY, 255)[..., None]).all()


def test_half_transparent_is_blended(tmp_path):
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert (saved(tmp_path / "a.png", half) == 127).all()


def test_palette_with_and_without_transparency(tmp_path):
    palette = Image.fromarray(np.arange(240, dtype=np.uint8).reshape(12, 20) % 3, "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    opaque = saved(tmp_path / "a.png", palette)
    assert opaque[0, :3].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    holed = saved(tmp_path / "b.png", palette, transparency=1)
    assert holed[0, :3].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
    faded = saved(tmp_path / "c.png", palette, transparency=bytes([255, 255, 0]))
    assert faded[0, :3].tolist() == [[255, 0, 0], [0, 255, 0], [255, 255, 255]]


def test_cmyk_jpeg(tmp_path):
    red = Image.new("RGB", (32, 32), (250, 10, 10)).convert("CMYK")
    assert np.abs(saved(tmp_path / "a.jpg", red).astype(int) - [250, 10, 10]).max() < 6


def test_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    got = saved(tmp_path / "a.png", Image.fromarray(COLOR), exif=exif)
    assert got.shape == (20, 12, 3) and (got == np.rot90(COLOR, -1)).all()


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    got = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (got == [255, 0, 0]).all()


def test_smaller_than_the_target_is_enlarged(tmp_path):
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    assert resize(read_image(tmp_path / "a.png")[0], 48).shape == (48, 80, 3)


def refusal(path) -> str:
    with pytest.raises(Unreadable) as caught:
        read_image(path)
    assert str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("size", "why"),
    [((3, 1), "3×1 pixels, under 8"), ((1, 1000), "under 8 on a side"), ((7, 100), "under 8"),
     ((8, 8 * LONGEST + 1), "8×129 pixels, over 16 times as long")],
)  # fmt: skip
def test_too_small_or_too_long(tmp_path, size, why):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert why in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(8, 8), (8, 8 * LONGEST), (8 * LONGEST, 8)])
def test_just_large_enough(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].size == size


def test_files_that_are_no_images(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-1500])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    assert "truncated" in refusal(tmp_path / "cut.jpg")
    assert refusal(tmp_path / "text.jpg") == "not an image"
    assert refusal(tmp_path / "zero.jpg") == "empty file"
    assert refusal(tmp_path / "missing.jpg") == "no such file or directory"
    assert refusal(tmp_path / "folder.jpg") == "is a directory"


def test_grey_without_a_known_range(tmp_path):
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((8, 8), 1_000_000, np.int32)).save(tmp_path / "int.tif")
    assert (
        refusal(tmp_path / "float.tif")
        == refusal(tmp_path / "int.tif")
        == "gray values without a known range"
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tif", "avif"])
def test_garbage_is_read_or_refused_but_never_a_crash(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOR).save(path)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(1), 0
    for _ in range(60):
        spoilt = bytearray(whole)
        for place in rng.integers(0, min(300, len(whole)), 5):
            spoilt[place] = rng.integers(256)
        path.write_bytes(spoilt)
        try:
            read_image(path)
        except Unreadable as error:
            refused += bool(str(error))
    assert refused


@pytest.mark.parametrize("side", [13_000, 100_000])  # under and over Pillow's own limit
def test_decompression_bomb_takes_no_memory(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 2, b"\0" * 1000))
    program = (
        "import resource, sys; from tok1d.data.decode import read_image, Unreadable\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_image(sys.argv[1])\n"
        "except Unreadable: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "bomb.png")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(out) < 50_000  # KiB; the pixels would be 500,000 or 30,000,000


def test_random_crops_stay_inside_and_reach_every_place():
    pixels = np.arange(1, 10 * 14 + 1, dtype=np.uint8).reshape(10, 14, 1).repeat(3, 2)  # no zeros
    rng, corners, mirrored = np.random.default_rng(0), set(), 0
    for _ in range(600):
        crop = random_crop_flip(pixels, 8, rng)
        assert crop.shape == (8, 8, 3) and crop.min() > 0
        flipped = crop[0, 0, 0] > crop[0, -1, 0]
        corners.add(int((crop[:, ::-1] if flipped else crop)[0, 0, 0]))
        mirrored += flipped
    assert corners == {1 + row * 14 + column for row in range(3) for column in range(7)}
    assert 240 < mirrored < 360


def test_crops_come_from_the_whole_image_and_both_ways(tmp_path):
    (tmp_path / "ramp").mkdir()
    ramp = np.broadcast_to(np.arange(1, 41, dtype=np.uint8)[None, :, None] * 6, (16, 40, 3))
    for name in ("a", "b"):
        Image.fromarray(ramp).save(tmp_path / f"ramp/{name}.png")
    config = DataConfig(data=tmp_path / "ramp", val_data="toy-roads", toy_val_images=1)
    images, _ = load_data(config, 16, tmp_path / "cache")
    assert images[0].shape == (16, 40, 3)
    rows = torch.cat([images.train_batch(step, 50, seed=0) for step in range(8)])[:, 0, 0].int() // 6
    mirrored = rows[:, 0] > rows[:, -1]
    first = torch.where(mirrored, rows[:, -1], rows[:, 0])
    assert ((rows[:, 1:] - rows[:, :-1]).abs() == 1).all()  # a crop is whole: neighbors stay neighbors
    assert set(first.tolist()) == set(range(1, 26)) and 150 < mirrored.sum() < 250


def test_floats_and_bytes():
    everything = torch.arange(256, dtype=torch.uint8)
    assert to_float(everything).min() == 0 and to_float(everything).max() == 1
    assert torch.equal(to_uint8(to_float(everything)), everything)
    assert to_uint8(torch.tensor([-1.0, 0.499 / 255, 0.501 / 255, 2.0])).tolist() == [0, 0, 1, 255]


def test_file_names_that_are_not_utf8(photos, tmp_path):
    root = photos(2)
    os.rename(root / "b.png", os.fsencode(root) + b"/caf\xe9.png")
    Path(os.fsdecode(os.fsencode(root) + b"/x\xe9.png")).write_text("no image")
    config = DataConfig(data=root, val_data="toy-roads", toy_val_images=1)
    with pytest.raises(ConfigError, match=r"the first is x\?\.png \(not an image\)"):
        load_data(config, 16, tmp_path / "cache")
    config = config.model_copy(update={"max_unreadable": 0.5})
    assert len(load_data(config, 16, tmp_path / "cache")[0]) == 2
