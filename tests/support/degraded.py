"""Real frames at 256 px, and what noise, blur and JPEG make of them."""

import io

import numpy as np
import torch
from PIL import Image, ImageFilter

from tok1d.data.decode import center_crop, resize


def squares(frames: list[Image.Image]) -> list[Image.Image]:
    return [Image.fromarray(center_crop(resize(frame, 256), 256)) for frame in frames]


def stacked(images: list[Image.Image]) -> torch.Tensor:
    """uint8 [N, 3, H, W]."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)


def noise(image: Image.Image, sigma: float) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, sigma, (256, 256, 3))
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def blur(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")
