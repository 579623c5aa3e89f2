"""Odd metadata never costs an image whose pixels are whole, and only its orientation matters."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tok1d.data.decode import Unreadable, decode

COLOR = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
COLOR[:8, :12] = 255  # one corner differs
TURNED = np.rot90(COLOR, -1)  # orientation 6
SIX = (0x112, 3, 1, struct.pack("<HH", 6, 0))
NONSENSE = {
    "a resolution that is text": (0x11A, 2, 4, b"72\0\0"),
    "a date that is a number": (0x132, 5, 1, b"\xff\xff\xff\x7f"),
    "an offset past the end": (0x10F, 2, 1000, b"\xff\xff\0\0"),
    "a type that there is not": (0x9999, 77, 3, b"abcd"),
    "a directory that is not there": (0x8769, 4, 1, b"\xff\xff\xff\x7f"),
    "the GPS that is text": (0x8825, 2, 4, b"none"),
    "a note without end": (0x927C, 7, 2**31, b"\x08\0\0\0"),
}


def saved(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOR).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(*entries: tuple[int, int, int, bytes], count: int | None = None) -> bytes:
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries) if count is None else count) + body + bytes(4)


def with_segment(raw: bytes, kind: int, payload: bytes) -> bytes:
    return raw[:2] + struct.pack(">BBH", 0xFF, kind, len(payload) + 2) + payload + raw[2:]


def with_chunk(raw: bytes, kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if crc is None else crc
    return raw[:33] + struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc) + raw[33:]


def pixels(raw: bytes) -> np.ndarray:
    return np.asarray(decode(raw)[0])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("odd", list(NONSENSE))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_counts_whatever_lies_beside_it(kind, odd, order):
    entries = (NONSENSE[odd], SIX) if order == "before" else (SIX, NONSENSE[odd])
    options = {"lossless": True} if kind == "WEBP" else {}
    raw, tiff = saved(kind, **options), exif(*entries)
    upright = pixels(raw)
    if kind == "JPEG":
        odd_file = with_segment(raw, 0xE1, b"Exif\0\0" + tiff)
    elif kind == "PNG":
        odd_file = with_chunk(raw, b"eXIf", tiff)
    else:
        odd_file = saved(kind, lossless=True, exif=b"Exif\0\0" + tiff)
    assert (pixels(odd_file) == np.rot90(upright, -1)).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(value):
    raw = saved("PNG")
    tiff = exif((0x112, 3, 1, struct.pack("<HH", value, 0)))
    assert (pixels(with_chunk(raw, b"eXIf", tiff)) == COLOR).all()


JPEG_ODDITIES = {
    "EXIF of garbage": (0xE1, b"Exif\0\0garbage that is no TIFF"),
    "EXIF without a directory": (0xE1, b"Exif\0\0II*\0"),
    "EXIF with a directory cut short": (0xE1, b"Exif\0\0" + exif(count=900)),
    "XMP of garbage": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation=\xff\xfe"),
    "a profile in no order": (0xE2, b"ICC_PROFILE\0\x07\x02garbage"),
    "an index of no pictures": (0xE2, b"MPF\0II*\0\x08\0\0\0\x01\0\x02\xb0\x07\0\xff\xff\xff\xff\0\0\0\0"),
    "Photoshop's resources cut short": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0\x01"),
    "a comment of zeros": (0xFE, bytes(100)),
    "a picture's size in an empty segment": (0xE1, b""),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("odd", list(JPEG_ODDITIES))
def test_jpeg_with_odd_segments(odd):
    raw = saved("JPEG")
    assert (pixels(with_segment(raw, *JPEG_ODDITIES[odd])) == pixels(raw)).all()


PNG_ODDITIES = {
    "a text with a wrong checksum": (b"tEXt", b"Software\0x", 7),
    "a text that unpacks to megabytes": (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22))),
    "a text of many megabytes": (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**22))),
    "a profile of garbage": (b"iCCP", b"name\0\x09garbage"),
    "a profile that is empty": (b"iCCP", b""),
    "a gamma cut short": (b"gAMA", b"\1"),
    "a size cut short": (b"pHYs", b"\1\2"),
    "EXIF of garbage": (b"eXIf", b"garbage"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("odd", list(PNG_ODDITIES))
def test_png_with_odd_chunks(odd):
    assert (pixels(with_chunk(saved("PNG"), *PNG_ODDITIES[odd])) == COLOR).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("tag", [0x11A, 0x128, 0x132, 0x10F])
def test_tiff_with_odd_tags(tag, compression):
    """A tag's type and count become nonsense, in a file that is to be turned."""
    raw = bytearray(
        saved("TIFF", compression=compression, tiffinfo={0x112: 6, 0x132: "x", 0x10F: "y"}, dpi=(72, 72))
    )
    first = struct.unpack_from("<I", raw, 4)[0]
    for at in range(first + 2, first + 2 + 12 * struct.unpack_from("<H", raw, first)[0], 12):
        if struct.unpack_from("<H", raw, at)[0] == tag:
            raw[at + 2 : at + 12] = struct.pack("<HI", 2, 4) + b"72\0\0"
    assert (pixels(bytes(raw)) == TURNED).all()


def test_pixels_that_are_not_whole_stay_unreadable():
    for kind in ("JPEG", "PNG", "TIFF"):
        raw = saved(kind)
        with pytest.raises(Unreadable):
            decode(raw[: len(raw) * 2 // 3] if kind != "TIFF" else raw[:60])
