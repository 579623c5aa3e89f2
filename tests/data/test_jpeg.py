"""The quick way from a JPEG file to its pixels gives Pillow's, bit for bit."""

import io

import numpy as np
import pytest
from PIL import Image

from tok1d.data.decode import Unreadable, decode, is_plain_jpeg


def jpeg(width: int, height: int, **options) -> bytes:
    """A soft picture with noise of its own."""
    noise = np.random.default_rng(width).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    raw = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(raw, "JPEG", **options)
    return raw.getvalue()


def by_pillow(raw: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(raw)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_decode_to_pillows_pixels(sampling, progressive):
    for width, height, quality in [(8, 9, 95), (33, 31, 30), (64, 63, 100), (200, 121, 80)]:
        raw = jpeg(width, height, quality=quality, subsampling=sampling, progressive=progressive)
        picture, _ = decode(raw)
        assert isinstance(picture, np.ndarray)  # so it was not Pillow that decoded it
        assert (picture == by_pillow(raw)).all()


def test_spoilt_jpegs_are_read_or_refused_as_by_pillow():
    rng, read = np.random.default_rng(0), 0
    whole = jpeg(64, 48, quality=80), jpeg(64, 48, quality=80, progressive=True)
    for i in range(300):
        spoilt = bytearray(whole[i % 2])
        for place in rng.integers(150, len(spoilt), 2):
            spoilt[place] = rng.integers(256)
        raw = bytes(spoilt[: rng.integers(100, len(spoilt))] if i % 5 == 0 else spoilt)
        try:
            wanted = by_pillow(raw)
        except Exception:
            with pytest.raises(Unreadable):
                decode(raw)
            continue
        if max(wanted.shape[:2]) > 16 * min(wanted.shape[:2]):
            continue
        read += 1
        assert (np.asarray(decode(raw)[0]) == wanted).all()
    assert 50 < read < 280


def test_which_jpegs_are_plain():
    exif = Image.Exif()
    exif[0x112] = 6
    for options, plain in [({}, True), ({"exif": exif}, False)]:
        with Image.open(io.BytesIO(jpeg(30, 20, **options))) as image:
            assert is_plain_jpeg(image) == plain
    for mode in ("L", "CMYK"):
        raw = io.BytesIO()
        Image.new(mode, (20, 20)).save(raw, "JPEG")
        with Image.open(raw) as image:
            assert not is_plain_jpeg(image)
