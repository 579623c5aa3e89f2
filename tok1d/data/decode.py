"""One image file in, square RGB pixels out: decoding, and the one resize rule.

What happens to awkward files:

| file                                     | becomes                                            |
|------------------------------------------|----------------------------------------------------|
| gray, palette, CMYK, 16-bit color       | RGB, 8 bits; color profiles are ignored           |
| 16-bit gray                              | RGB, 65535 -> 255                                  |
| transparent                              | RGB over white                                     |
| EXIF orientation                         | turned upright                                     |
| other metadata, whole or odd             | ignored                                            |
| animation, several pages                 | its first frame                                    |
| smaller than the target                  | enlarged                                           |
| HEIC                                     | its pixels, if `pillow-heif` is installed          |
| truncated, not an image, empty, missing, a folder, a pipe | `Unreadable`, counted and named   |
| shorter side under 8 pixels              | `Unreadable`                                       |
| longer side over 16 times the shorter    | `Unreadable`: a crop would show next to nothing    |
| claims over 178 million pixels           | `Unreadable`, before any memory is taken           |
| floating-point or 32-bit gray, Lab       | `Unreadable`: nothing says what white is           |
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path

import numpy as np
from PIL import Image

from tok1d.data.metadata import TURNS, orientation, upright, without_metadata

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".mpo"),
    *(".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".avifs"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi", ".pcx", ".sgi", ".ras"),
}  # of photographs that Pillow opens; not .ico, .psd, .eps and other drawings, which it opens too
HEIC = {".heic", ".heics", ".heif", ".heifs", ".hif"}
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
INSTALL_HEIF = "HEIC needs another library: type pip install pillow-heif"
MOST_BYTES = 2**31  # of a file: four times the largest image without any compression
SMALLEST = 8  # pixels on the shorter side; below it there is no picture to learn from
LONGEST = 16  # longer side over shorter; resized to 256 pixels, 8 x 100000 would fill gigabytes
RESIZE_RULE = "shorter side, torch's antialiased bicubic on uint8, center crop"
PLAIN_SAMPLINGS = [[luma, (1, 1), (1, 1)] for luma in ((1, 1), (2, 1), (2, 2))]  # 4:4:4, 4:2:2, 4:2:0

Picture = Image.Image | np.ndarray  # RGB; uint8 [H, W, 3]


class Unreadable(ValueError):
    """A file that is no usable image; the message says why."""


def read_image(path: str | Path) -> tuple[Picture, str]:
    """The image at `path`, upright RGB, and the SHA-256 of its file. Raises `Unreadable`."""
    try:
        about = os.stat(path)
        file = stat.S_ISREG(about.st_mode)  # reading a pipe or a device may never end
        raw = Path(path).read_bytes() if file and about.st_size <= MOST_BYTES else None
    except OSError as error:
        raise Unreadable(error.strerror.lower() if error.strerror else "cannot be read") from None
    except ValueError:
        raise Unreadable("no file can have this name") from None
    if raw is None:
        what = f"{about.st_size:,} bytes are no image" if file else "no file but a pipe or a device"
        raise Unreadable("is a directory" if stat.S_ISDIR(about.st_mode) else what)
    return decode(raw)


def decode(raw: bytes) -> tuple[Picture, str]:
    """The image in an image file's bytes, upright RGB, and their SHA-256. Raises `Unreadable`."""
    if not raw:
        raise Unreadable("empty file")
    try:
        picture = _pixels(raw)
    except Unreadable:
        raise
    except Exception as error:  # on garbage Pillow's decoders raise anything
        picture = _pixels_alone(raw, error)
    width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    if min(width, height) < SMALLEST:
        raise Unreadable(f"{width}×{height} pixels, under {SMALLEST} on a side")
    if max(width, height) > LONGEST * min(width, height):
        raise Unreadable(f"{width}×{height} pixels, over {LONGEST} times as long as wide")
    return picture, hashlib.sha256(raw).hexdigest()


def _pixels(raw: bytes) -> Picture:
    with Image.open(io.BytesIO(raw)) as image:
        picture = decode_plain_jpeg(raw) if is_plain_jpeg(image) else None
        if picture is None:
            image.load()
            return to_rgb(upright(image))
        return picture


def _pixels_alone(raw: bytes, error: Exception) -> Picture:
    """The picture of a file that Pillow refused, if it was for what is beside the pixels."""
    if isinstance(error, Image.UnidentifiedImageError) and is_heic(raw):
        if not can_open_heic():
            raise Unreadable(INSTALL_HEIF)
        return _pixels(raw)
    for less, turned in without_metadata(raw):
        try:
            picture = _pixels(less)
        except Exception:  # the pixels are not whole either
            continue
        turn = TURNS.get(turned)
        return picture if turn is None else to_rgb(Image.fromarray(np.asarray(picture)).transpose(turn))
    if isinstance(error, Image.UnidentifiedImageError):
        raise Unreadable("not an image")
    raise Unreadable(str(error).split("\n")[0].lower() or type(error).__name__)


def is_heic(raw: bytes) -> bool:
    """Whether a file begins as Apple's and Samsung's photographs do."""
    return raw[4:8] == b"ftyp" and raw[8:12] in HEIC_BRANDS


def can_open_heic() -> bool:
    """Whether `pillow-heif` is installed; if it is, Pillow opens HEIC from now on."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def is_plain_jpeg(image: Image.Image) -> bool:
    """Upright color with the usual sampling: every build of libjpeg-turbo decodes it to the same pixels."""
    return (
        image.format == "JPEG"
        and image.mode == "RGB"
        and [layer[1:3] for layer in getattr(image, "layer", ())] in PLAIN_SAMPLINGS
        and orientation(image) == 1
    )


def decode_plain_jpeg(raw: bytes) -> np.ndarray | None:
    """uint8 [H, W, 3]: Pillow's pixels without its copies; None: ask Pillow."""
    import torch
    from torchvision.io import decode_jpeg

    try:
        data = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        return decode_jpeg(data).permute(1, 2, 0).numpy()
    except RuntimeError:  # cut short, or a torchvision built without JPEG
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # Pillow's own conversion would clip 16 bits
        pixels = np.asarray(image)
        if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
            raise Unreadable("gray values without a known range")
        image = Image.fromarray((pixels.astype(np.float64) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def resize(picture: Picture, size: int) -> np.ndarray:
    """uint8 [h, w, 3], min(h, w) = size: the shorter side to `size`, as torchvision's v2.Resize of a tensor.

    Integers, first across and then down: the same pixels with and without vector instructions, in any number
    of threads. Pillow's are at most 2 levels away, but for hard edges in pictures twice as tall as wide;
    newer Pillows go down first there. With AVX2 an eighth of its time: `python -m benchmarks.loader`.
    """
    import torch

    pixels = np.array(picture) if isinstance(picture, Image.Image) else picture
    sides = pixels.shape[:2]
    target = [int(size * side / min(sides)) for side in sides]
    images = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # [1, 3, H, W], channels last: not copied
    resized = torch.nn.functional.interpolate(images, target, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """[h, w, 3] -> [size, size, 3], placed as torchvision."""
    top, left = (round((side - size) / 2) for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


def random_crop_flip(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """[h, w, 3] -> [size, size, 3] at a random place, mirrored half of the time."""
    top, left = (int(rng.integers(side - size + 1)) for side in pixels.shape[:2])
    crop = pixels[top : top + size, left : left + size]
    return crop[:, ::-1] if rng.random() < 0.5 else crop
