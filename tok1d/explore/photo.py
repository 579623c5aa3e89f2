"""A photograph of one's own, as a tokenizer wants it: from a path, a file's bytes, or a picture in memory.

image = open_photo("~/holiday.jpg", 64)    # uint8 [3, 64, 64]: upright, shorter side 64, center crop
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.data.decode import Unreadable, center_crop, decode, read_image, resize, to_rgb

OTHERS = "give a JPEG, PNG, WebP, TIFF … of 8 … 178,000,000 pixels"


def open_photo(photo: str | Path | bytes | Image.Image, size: int, name: str = "") -> Tensor:
    """uint8 [3, size, size], with the one resize rule of training and evaluation.

    `name` is what messages call bytes. Raises `ConfigError` for what is no usable image, or no size.
    """
    if size < 1:
        raise ConfigError(f"an image of {size} pixels is none: type the tokenizer's image_size, such as 64")
    what = name or (str(photo) if isinstance(photo, str | Path) else "the picture")
    try:
        if isinstance(photo, bytes):
            picture, _ = decode(photo)
        elif isinstance(photo, Image.Image):
            picture = to_rgb(photo)
        else:
            picture, _ = read_image(Path(photo).expanduser())
    except Unreadable as error:
        raise ConfigError(f"{what} cannot be shown ({error}): {OTHERS}") from None
    return torch.from_numpy(center_crop(resize(picture, size), size).transpose(2, 0, 1).copy())
