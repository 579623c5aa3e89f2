"""The one resize rule: torchvision's of tensors, the same pixels everywhere, and next to Pillow's."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tok1d.data.decode import center_crop, resize

SIZES = [
    (40, 30), (30, 40), (41, 29), (29, 47), (101, 67), (16, 16), (17, 33), (13, 9), (1280, 720), (160, 10)
]  # fmt: skip


def noise(width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]."""
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


def by_pillow(pixels: np.ndarray, size: int) -> np.ndarray:
    height, width = (int(size * side / min(pixels.shape[:2])) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("target", [16, 17, 33])
def test_resize_rule_is_torchvisions(target):
    rule = v2.Compose(
        [v2.Resize(target, v2.InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(target)]
    )
    for width, height in SIZES:
        pixels = noise(width, height)
        ours = center_crop(resize(pixels, target), target)
        assert ours.shape == (target, target, 3)
        theirs = rule(torch.from_numpy(pixels).permute(2, 0, 1))
        assert (ours == theirs.permute(1, 2, 0).numpy()).all(), (width, height)
        assert (resize(Image.fromarray(pixels), target) == resize(pixels, target)).all()


def test_rounding_is_torchvisions_over_many_sizes():
    for width in range(33, 99):
        image, target = Image.new("L", (width, 32)).convert("RGB"), 16
        resized = resize(image, target)
        assert resized.shape[:2] == tuple(v2.functional.get_size(v2.functional.resize(image, [target])))
        ramp = np.broadcast_to(np.arange(resized.shape[1], dtype=np.uint8)[None, :, None], resized.shape)
        theirs = v2.functional.center_crop(torch.tensor(ramp.copy()).permute(2, 0, 1), [target, target])
        assert (center_crop(ramp, target)[0, :, 0] == theirs[0, 0].numpy()).all()


def test_pillows_pixels_are_at_most_two_levels_away():
    """Of noise with overshoots, which is the worst there is, where Pillow goes across first as torch does."""
    for width, height in [size for size in SIZES if size[0] >= size[1]]:
        for pixels in (noise(width, height), np.uint8(255) * (noise(width, height) > 127)):
            for size in (8, 16, 31, 64, 200):
                apart = np.abs(resize(pixels, size).astype(int) - by_pillow(pixels, size))
                assert apart.max() <= 2, (width, height, size)
    soft = resize(noise(9, 32), 90)  # tall: down first, which shows only where overshoots are clipped
    assert np.abs(resize(soft, 40).astype(int) - by_pillow(soft, 40)).max() <= 2


def test_an_image_of_the_right_size_stays_as_it_is():
    assert (resize(noise(40, 16), 16) == noise(40, 16)).all()


def test_the_same_pixels_in_threads_and_without_vector_instructions():
    program = (
        "import hashlib, numpy as np\nfrom tok1d.data.decode import resize\n"
        "for width, height in {sizes}:\n"
        "    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)\n"
        "    print(hashlib.sha256(resize(noise, 33)).hexdigest())"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", program.format(sizes=SIZES)]
    plain = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    with ThreadPoolExecutor(3) as pool:
        threads = list(pool.map(lambda size: resize(noise(*size), 33), SIZES * 3))
    here = [hashlib.sha256(resize(noise(*size), 33)).hexdigest() for size in SIZES]
    assert plain.split() == here
    assert [hashlib.sha256(pixels).hexdigest() for pixels in threads] == here * 3
