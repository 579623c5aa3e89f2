"""From JPEG files to batches: torchvision's ImageFolder beside ours, images a second of one core.

python -m benchmarks.loader             400 toy roads, saved as JPEG files of 1280 x 720
python -m benchmarks.loader FOLDER      the JPEG files of a folder, repeated to as many (FOLDER 900: to 900)

Each is a process of its own, by turns, and the medians are shown. "Per core" counts processor time of all
threads, so other work on the machine counts little. First it is checked that the pixels are torchvision's of
tensors, bit for bit; the ImageFolder that is timed resizes by Pillow, as usual. Then come the resize alone,
and how long a step waits for cached images beside a device that computes: for our loader, and for torch's
DataLoader over the same steps without and with a process of its own.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # the processes that measure import what they need
    from torch import Tensor

    from tok1d.data.dataset import ImageDataset

SIZE, BATCH, TURNS = 256, 32, 3
STEP, STEPS = 0.05, 60  # seconds that a device computes, and how often
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
            "Pillow's resize": time_pillow_resize, "our resize": time_our_resize,
            "our loader": wait_for_loader, "DataLoader": wait_for_data_loader,
            "DataLoader, a process": wait_for_process,
        }  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, way in ways.items():
                spawn = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(1, mp_context=spawn) as pool:  # none profits from another
                    rates[name].append(pool.submit(way, data, cache).result())
    pillows, ours = (1000 / median(rates.pop(name)) for name in ("Pillow's resize", "our resize"))
    waits = {name: 1000 * median(rates.pop(name)) for name in list(rates)[3:]}
    base = median(rates["ImageFolder"])
    print(f"{int(images)} JPEG files -> batches of {BATCH} at {SIZE} px")
    print(f"{'':24}{'images/s per core':>20}{'times ImageFolder':>20}")
    for name, values in rates.items():
        print(f"{name:24}{median(values):20.0f}{median(values) / base:20.1f}")
    print(f"resize alone: {ours:.2f} ms, {pillows / ours:.1f} times as fast as Pillow's {pillows:.2f} ms")
    for name, wait in waits.items():
        print(f"a step of {1000 * STEP:.0f} ms waits for images, {name}: {wait:.1f} ms")


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


def image_folder(data: Path, tensors: bool = False) -> Iterable[list[Tensor]]:
    """ImageFolder and a loader of its batches: random crops by Pillow, floats [B, 3, S, S] in 0 … 1.

    `tensors`: center crops in order by our resize rule, uint8.
    """
    import torch
    from torchvision import datasets, transforms
    from torchvision.transforms import v2

    resize = v2.Resize(SIZE, v2.InterpolationMode.BICUBIC, antialias=True)
    if tensors:
        rule = [v2.PILToTensor(), resize, v2.CenterCrop(SIZE)]
    else:
        rule = [resize, v2.RandomCrop(SIZE), v2.RandomHorizontalFlip(), transforms.ToTensor()]
    torch.set_num_threads(1)
    images = datasets.ImageFolder(data, v2.Compose(rule))
    return torch.utils.data.DataLoader(images, BATCH, shuffle=not tensors)


def our_images(data: Path, cache: Path, limit: int = 0) -> ImageDataset:
    import torch

    from tok1d.config.schema import DataConfig
    from tok1d.data.dataset import load_images
    from tok1d.data.sources import find_sources

    torch.set_num_threads(1)
    source, rest = find_sources(DataConfig(data=str(data)), SIZE, cache)
    names = (source.names + rest.names)[: limit or None]
    return load_images(source._replace(names=names), SIZE, cache)


def assert_same_pixels(data: Path, cache: Path) -> None:
    import torch

    ours = our_images(data, cache)
    for theirs, mine in zip(image_folder(data, tensors=True), ours.batches(BATCH), strict=True):
        if not torch.equal(theirs[0], mine):
            sys.exit("the pixels differ from torchvision's")


def time_image_folder(data: Path, cache: Path) -> float:
    """Images a second of an epoch of random crops."""
    loader = image_folder(data)
    next(iter(loader))  # the first one warms up
    began = time.process_time()
    count = sum(len(images) for images, _ in loader)
    return count / (time.process_time() - began)


def time_first_epoch(data: Path, cache: Path) -> float:
    """Decoding into the cache, then an epoch of random crops."""
    shutil.rmtree(cache, ignore_errors=True)
    our_epoch(our_images(data, cache, limit=BATCH))  # the first ones warm up: imports
    began = time.process_time()
    return our_epoch(our_images(data, cache)) / (time.process_time() - began)


def time_cached_epoch(data: Path, cache: Path) -> float:
    images = our_images(data, cache)
    began = time.process_time()
    return our_epoch(images) / (time.process_time() - began)


def time_pillow_resize(data: Path, cache: Path) -> float:
    """Pictures a second, one thread."""
    from PIL import Image

    def by_pillow(picture: Image.Image) -> None:
        width, height = (int(SIZE * side / min(picture.size)) for side in picture.size)
        picture.resize((width, height), Image.Resampling.BICUBIC)

    return pictures_a_second(by_pillow, [Image.fromarray(pixels) for pixels in pictures(data)])


def time_our_resize(data: Path, cache: Path) -> float:
    from tok1d.data.decode import resize

    return pictures_a_second(lambda pixels: resize(pixels, SIZE), pictures(data))


def pictures(data: Path, count: int = 20) -> list[np.ndarray]:
    """The first files' pixels, uint8 [H, W, 3]."""
    from tok1d.data.decode import read_image

    return [np.array(read_image(path)[0]) for path in sorted((data / "one class").iterdir())[:count]]


def pictures_a_second(resize: Callable, pictures: list, times: int = 10) -> float:
    for picture in pictures:  # warms up
        resize(picture)
    began = time.process_time()
    for _ in range(times):
        for picture in pictures:
            resize(picture)
    return times * len(pictures) / (time.process_time() - began)


def wait_for_loader(data: Path, cache: Path) -> float:
    """Seconds a step waits for our loader, of cached images."""
    from tok1d.config.schema import TrainConfig
    from tok1d.data.loader import Loader

    with Loader(our_images(data, cache), TrainConfig(batch_size=BATCH, steps=STEPS), "cpu") as loader:
        return seconds_waited(map(loader.parts, range(STEPS)))


def wait_for_data_loader(data: Path, cache: Path, processes: int = 0) -> float:
    """The same of torch's DataLoader."""
    from torch.utils.data import DataLoader

    steps: Any = Steps(our_images(data, cache))  # it has the methods of a Dataset, and that is enough
    context = "fork" if processes else None
    loader = DataLoader(steps, None, num_workers=processes, multiprocessing_context=context)
    return seconds_waited(iter(loader))


def wait_for_process(data: Path, cache: Path) -> float:
    return wait_for_data_loader(data, cache, processes=1)


@dataclass
class Steps:
    """Batches of random crops by step, as torch's DataLoader wants its data set."""

    images: ImageDataset

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> Tensor:
        return self.images.train_batch(step, BATCH, seed=0)


def seconds_waited(batches: Iterator) -> float:
    """For all but the first, each while a device computes."""
    next(batches)
    waited = 0.0
    for _ in range(STEPS - 1):
        time.sleep(STEP)
        began = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - began
    return waited / (STEPS - 1)


def our_epoch(images: ImageDataset) -> int:
    """All images of an epoch, random crops, floats as ImageFolder's; their number."""
    from tok1d.data.dataset import to_float

    steps = len(images) // BATCH
    return sum(len(to_float(images.train_batch(step, BATCH, seed=0))) for step in range(steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
