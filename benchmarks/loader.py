"""From JPEG files to batches: torchvision's ImageFolder beside ours, images a second of one core.

python -m benchmarks.loader             400 toy roads, saved as JPEG files of 1280 x 720
python -m benchmarks.loader FOLDER      the JPEG files of a folder, repeated to as many (FOLDER 900: to 900)

Each is a process of its own, by turns, and the medians are shown. "Per core" counts processor time of all
threads, so other work on the machine counts little. First it is checked that the pixels are the same, bit
for bit. The resize compiled for sets of over 2000 images is used, without the seconds that compiling takes.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the processes that measure import what they need
    from torch import Tensor

    from tok1d.data.dataset import ImageDataset

SIZE, BATCH, TURNS = 256, 32, 3
WIDTH, HEIGHT = 1280, 720


def main(folder: str = "", images: str = "400") -> None:
    """Print the table. `images` is the number of files a turn."""
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary, "data")
        (data / "one class").mkdir(parents=True)
        if folder:
            repeat(Path(folder), data / "one class", int(images))
        else:
            draw_scene(data / "one class", int(images))
        assert_same_pixels(data, Path(temporary, "check"))
        cache = Path(temporary, "cache")
        ways: dict[str, Callable[[Path, Path], float]] = {
            "ImageFolder": time_image_folder, "ours, first epoch": time_first_epoch,
            "ours, from the cache": time_cached_epoch,
        }  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, way in ways.items():
                with multiprocessing.get_context("spawn").Pool(1) as pool:  # none profits from another
                    rates[name].append(pool.apply(way, (data, cache)))
    base = median(rates["ImageFolder"])
    from tok1d.data.decode import quick_resize

    if quick_resize() is None:
        print("without numba, images are resized by Pillow: pip install numba for three times its speed")
    print(f"{int(images)} JPEG files -> batches of {BATCH} at {SIZE} px")
    print(f"{'':24}{'images/s per core':>20}{'times ImageFolder':>20}")
    for name, values in rates.items():
        print(f"{name:24}{median(values):20.0f}{median(values) / base:20.1f}")


def repeat(folder: Path, to: Path, count: int) -> None:
    """`count` files with names of their own, of the JPEG files in a folder over and over."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        sys.exit(f"there are no .jpg files in {folder}: type python -m benchmarks.loader FOLDER of some")
    for i in range(count):
        shutil.copyfile(files[i % len(files)], to / f"{i:06}.jpg")


def draw_scene(to: Path, count: int, different: int = 40) -> None:
    """`count` JPEG files of `different` toy roads."""
    from tok1d.data.toy_roads.draw import draw_scene as toy_road

    with tempfile.TemporaryDirectory() as temporary:
        for i in range(min(different, count)):
            road = toy_road(i, 1024).resize((WIDTH, WIDTH)).crop((0, 280, WIDTH, 280 + HEIGHT))
            road.save(Path(temporary, f"{i:06}.jpg"), quality=90)
        repeat(Path(temporary), to, count)


def image_folder(data: Path, random: bool) -> Iterable[list[Tensor]]:
    """ImageFolder with our resize rule, and a loader of its batches: floats [B, 3, S, S] in 0 … 1."""
    import torch
    from torchvision import datasets, transforms
    from torchvision.transforms import InterpolationMode

    crop = [transforms.RandomCrop(SIZE), transforms.RandomHorizontalFlip()]
    rule = transforms.Compose([
        transforms.Resize(SIZE, InterpolationMode.BICUBIC, antialias=True),
        *(crop if random else [transforms.CenterCrop(SIZE)]),
        transforms.ToTensor(),
    ])  # fmt: skip
    torch.set_num_threads(1)
    return torch.utils.data.DataLoader(datasets.ImageFolder(data, rule), BATCH, shuffle=random)


def our_images(data: Path, cache: Path, limit: int = 0) -> ImageDataset:
    import torch

    from tok1d.config.schema import DataConfig
    from tok1d.data import dataset as tok1d_data
    from tok1d.data.sources import find_sources

    torch.set_num_threads(1)
    tok1d_data.MANY = 0  # as for a large set
    source, rest = find_sources(DataConfig(data=str(data)), SIZE, cache)
    names = (source.names + rest.names)[: limit or None]
    return tok1d_data.load_images(source._replace(names=names), SIZE, cache)


def assert_same_pixels(data: Path, cache: Path) -> None:
    import torch

    from tok1d.data.dataset import to_float

    ours = our_images(data, cache)
    for theirs, mine in zip(image_folder(data, random=False), ours.batches(BATCH), strict=True):
        if not torch.equal(theirs[0], to_float(mine)):
            sys.exit("the pixels differ from torchvision's")


def time_image_folder(data: Path, cache: Path) -> float:
    """Images a second of an epoch of random crops."""
    loader = image_folder(data, random=True)
    next(iter(loader))  # the first one warms up
    began = time.process_time()
    count = sum(len(images) for images, _ in loader)
    return count / (time.process_time() - began)


def time_first_epoch(data: Path, cache: Path) -> float:
    """Decoding into the cache, then an epoch of random crops."""
    shutil.rmtree(cache, ignore_errors=True)
    our_epoch(our_images(data, cache, limit=BATCH))  # the first ones warm up: imports, what is compiled
    began = time.process_time()
    return our_epoch(our_images(data, cache)) / (time.process_time() - began)


def time_cached_epoch(data: Path, cache: Path) -> float:
    images = our_images(data, cache)
    began = time.process_time()
    return our_epoch(images) / (time.process_time() - began)


def our_epoch(images: ImageDataset) -> int:
    """All images of an epoch, random crops, floats as ImageFolder's; their number."""
    from tok1d.data.dataset import to_float

    steps = len(images) // BATCH
    return sum(len(to_float(images.train_batch(step, BATCH, seed=0))) for step in range(steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
