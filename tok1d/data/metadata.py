"""What of an image file's metadata matters, its orientation; and the file without the rest.

Cameras, phones and editors write odd EXIF, broken text chunks and endless profiles. Pillow may refuse a file
for those although its pixels are whole.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

from PIL import ExifTags, Image

ORIENTATION = int(ExifTags.Base.Orientation)
Turn = Image.Transpose
TURNS = {
    2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM, 5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270, 7: Turn.TRANSVERSE, 8: Turn.ROTATE_90,
}  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n"
TIFF_PIXELS = {
    *(254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
    *(332, 333, 334, 336, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532),
}  # the tags that say how a TIFF's pixels are stored


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its orientation says."""
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 … 8; 1 where there is none, or none that can be read."""
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow's readers of metadata raise anything
        found = None
    if found is None:  # they also end at the first tag that is odd
        found = _orientation_in(image.info.get("exif"))
    return found if isinstance(found, int) and found in TURNS else 1


def _orientation_in(exif: object) -> int:
    """The orientation in the bytes of an EXIF block, 1 if there is none."""
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\0\0")
    with contextlib.suppress(struct.error):
        for tag, at in _directory(tiff):
            if tag == ORIENTATION:
                return _number(tiff, at)
    return 1


def _order(tiff: bytes) -> str:
    return "<" if tiff[:2] == b"II" else ">"


def _directory(tiff: bytes) -> Iterator[tuple[int, int]]:
    """Each tag of a TIFF's first directory, and where its 12 bytes begin. Raises `struct.error`."""
    (first,) = struct.unpack_from(f"{_order(tiff)}I", tiff, 4)
    (count,) = struct.unpack_from(f"{_order(tiff)}H", tiff, first)
    for at in range(first + 2, first + 2 + 12 * count, 12):
        yield struct.unpack_from(f"{_order(tiff)}H", tiff, at)[0], at


def _number(tiff: bytes, at: int) -> int:
    """The number of the entry at a place, of 16 or 32 bits."""
    (kind,) = struct.unpack_from(f"{_order(tiff)}H", tiff, at + 2)
    return struct.unpack_from(f"{_order(tiff)}{'I' if kind == 4 else 'H'}", tiff, at + 8)[0]


def without_metadata(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """The same pixels in files with less beside them, and how each is to be turned besides: first all but
    the EXIF is left out, then that too. Nothing for a format that is not known here.
    """
    try:
        if raw.startswith(b"\xff\xd8"):
            for but in (b"Exif\0", None):
                yield b"\xff\xd8" + b"".join(_jpeg_segments(raw, but)), 1
        elif raw.startswith(PNG):
            for chunks in ({b"tRNS", b"eXIf"}, {b"tRNS"}):
                yield PNG + b"".join(_png_chunks(raw, chunks)), 1
        elif raw[:4] in (b"II*\0", b"MM\0*"):
            yield _tiff_of_pixels(raw)
    except (struct.error, IndexError):
        return


def _jpeg_segments(raw: bytes, but: bytes | None) -> Iterator[bytes]:
    """All segments after the first marker, without comments and application data other than JFIF's, Adobe's
    and what begins with `but`.
    """
    at = 2
    while raw[at + 1] != 0xDA:  # the scan: from here on there are pixels
        if raw[at] != 0xFF:
            return
        end = at + 2 + struct.unpack_from(">H", raw, at + 2)[0]
        kind, body = raw[at + 1], raw[at + 4 : end]
        beside = kind == 0xFE or (0xE1 <= kind <= 0xEF and kind != 0xEE)
        if not beside or (but and body.startswith(but)):
            yield raw[at:end]
        at = end
    yield raw[at:]


def _png_chunks(raw: bytes, but: set[bytes]) -> Iterator[bytes]:
    """The chunks that pixels need, and those named `but`."""
    at = len(PNG)
    while at < len(raw):
        end = at + 12 + struct.unpack_from(">I", raw, at)[0]
        kind = raw[at + 4 : at + 8]
        if kind[:1].isupper() or kind in but:
            yield raw[at:end]
        at = end


def _tiff_of_pixels(raw: bytes) -> tuple[bytes, int]:
    """A TIFF whose first directory says only how its pixels are stored, and its orientation."""
    kept, turned = [], 1
    for tag, at in _directory(raw):
        if tag in TIFF_PIXELS:
            kept.append(raw[at : at + 12])
        elif tag == ORIENTATION:
            turned = _number(raw, at)
    (first,) = struct.unpack_from(f"{_order(raw)}I", raw, 4)
    directory = struct.pack(f"{_order(raw)}H", len(kept)) + b"".join(kept) + bytes(4)
    return raw[:first] + directory + raw[first + len(directory) :], turned
