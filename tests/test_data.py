"""Pixels and batches: the cache can be trusted, and a step's batch depends on the seed and the step alone."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from tok1d.config import ConfigError, DataConfig
from tok1d.data import load_data, load_images
from tok1d.images import centre_crop, resize
from tok1d.sources import find_sources


def load(data, cache, size: int = 16):
    """The training images of a folder."""
    return load_data(DataConfig(data=data, val_data="toy-roads", toy_val_images=1), size, cache)[0]


def source_of(data):
    return find_sources(DataConfig(data=data, val_data="toy-roads", toy_val_images=1), 16)[0]


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


HEAD = """
import hashlib, os, signal, sys, time
from tok1d.config import DataConfig
from tok1d.data import load_data, load_images
from tok1d.sources import find_sources
config = DataConfig(data=sys.argv[1], val_data="toy-roads", toy_val_images=1)
"""


def run(program: str, *args, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", HEAD + program, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture
def plain(tmp_path):
    """`plain(7)`: seven 24 x 16 images, number i all of grey value i."""

    def write(count: int) -> Path:
        (tmp_path / "plain").mkdir()
        for i in range(count):
            Image.new("RGB", (24, 16), (i, i, i)).save(tmp_path / f"plain/{i:03}.png")
        return tmp_path / "plain"

    return write


def numbers(batch: torch.Tensor) -> list[int]:
    """Which of the plain images a batch holds; all of a crop must be of that image."""
    assert (batch == batch[:, :1, :1, :1]).all()
    return batch[:, 0, 0, 0].tolist()


# ---- pixels ----


def test_pixels_are_those_of_the_files(photos, tmp_path):
    root = photos(2, size=(40, 30))
    photos(1, size=(30, 47), start=2)
    images = load(root, tmp_path / "cache")
    assert [image.shape for image in images] == [(16, 21, 3), (16, 21, 3), (25, 16, 3)]
    for i, name in enumerate(images.names):
        wanted = resize(Image.open(root / name), 16)
        assert (images[i] == wanted).all()
        assert (images.centre([i])[0].permute(1, 2, 0).numpy() == centre_crop(wanted, 16)).all()


def test_batches_are_all_centre_crops_in_order(plain, tmp_path):
    images = load(plain(7), tmp_path / "cache")
    assert [numbers(batch) for batch in images.batches(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [numbers(batch) for batch in images.batches(3, limit=4)] == [[0, 1, 2], [3]]
    assert [numbers(batch) for batch in images.batches(3, limit=99)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert next(images.batches(3)).shape == (3, 3, 16, 16) and next(images.batches(3)).dtype == torch.uint8


# ---- the cache ----


def test_second_load_decodes_nothing(photos, tmp_path):
    source, cache = source_of(photos(5)), tmp_path / "cache"

    def never(name):
        raise AssertionError(f"{name} was decoded again")

    first = load_images(source, 16, cache)
    before = (folders(cache)[0] / "pixels.u8").stat()
    second = load_images(source._replace(read=never), 16, cache)
    after = (folders(cache)[0] / "pixels.u8").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(folders(cache)) == 1
    assert (first.pixels == second.pixels).all() and first.fingerprint == second.fingerprint


def test_changed_file_is_read_again_even_with_its_old_size_and_date(photos, tmp_path):
    root, cache = photos(2), tmp_path / "cache"
    for file in root.iterdir():
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    before = load(root, cache)
    stat = (root / "a.bmp").stat()
    spoilt = bytearray((root / "a.bmp").read_bytes())
    spoilt[-1] ^= 255  # one colour of one pixel
    (root / "a.bmp").write_bytes(spoilt)
    os.utime(root / "a.bmp", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = load(root, cache)
    assert after.fingerprint != before.fingerprint
    assert not (after[0] == before[0]).all() and (after[1] == before[1]).all()


def test_other_sizes_and_other_lists_have_their_own_cache(photos, tmp_path):
    root, cache = photos(3), tmp_path / "cache"
    small, large = load(root, cache, 16), load(root, cache, 24)
    assert small[0].shape[0] == 16 and large[0].shape[0] == 24
    assert small.fingerprint == large.fingerprint  # of the files, not of the pixels
    (root / "b.png").unlink()
    assert load(root, cache).names == ["a.png", "c.png"]


def test_fingerprint_is_of_the_content(photos, tmp_path):
    root = photos(3)
    mine = load(root, tmp_path / "one").fingerprint
    assert load(root, tmp_path / "two").fingerprint == mine
    assert load(shutil.copytree(root, tmp_path / "copy"), tmp_path / "one").fingerprint == mine
    (tmp_path / "copy/a.png").rename(tmp_path / "copy/aa.png")
    assert load(tmp_path / "copy", tmp_path / "one").fingerprint != mine
    photos(1, start=3)
    assert load(root, tmp_path / "one").fingerprint != mine


RACE = """
for turn in range(6):
    start, children = time.time() + 0.05, []
    for _ in range(4):
        if not (child := os.fork()):
            sys.stderr = open(os.devnull, "w")
            time.sleep(max(0, start - time.time()))
            try:
                images, _ = load_data(config, 16, f"{sys.argv[2]}/{turn}")
                said = images.fingerprint
            except BaseException as error:
                said = repr(error)
            os.write(1, f"{said}\\n".encode())  # in one piece
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
"""


def test_processes_that_build_the_same_cache_at_once_all_succeed(photos, tmp_path):
    said = run(RACE, photos(30, size=(16, 16)), tmp_path / "cache", check=True).stdout.split("\n")[:-1]
    assert len(said) == 24 and len(set(said)) == 1, said
    for turn in range(6):
        assert [path.suffix for path in folders(tmp_path / f"cache/{turn}")] == ["", ""]  # train, val


def test_another_process_may_be_first(photos, tmp_path):
    source, cache = source_of(photos(3)), tmp_path / "cache"

    def slow(name):
        if name == "c.png":
            load_images(source, 16, cache)
        return source.read(name)

    images = load_images(source._replace(read=slow), 16, cache)
    assert len(images) == 3 and len(folders(cache)) == 1


KILLED = """
source, _ = find_sources(config, 16)
def read(name):
    if name == "z150.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return source.read(name)
load_images(source._replace(read=read), 16, sys.argv[2])
"""


def test_killed_build_leaves_nothing_that_is_used(photos, tmp_path):
    root, cache = photos(160, size=(16, 16)), tmp_path / "cache"
    assert run(KILLED, root, cache).returncode == -signal.SIGKILL
    left = folders(cache)
    assert [path.suffix for path in left] == [".tmp"]
    images = load(root, cache)
    assert len(images) == 160 and (images.pixels == load(root, tmp_path / "clean").pixels).all()
    assert left[0].exists()  # it may be another process at work


def test_what_killed_builds_left_is_removed_after_a_day(photos, tmp_path):
    cache, now = tmp_path / "cache", time.time()
    for name, hours in {"old": 30, "young": 20, "at work": 30}.items():
        folder = cache / f"16px-{name}.1234abcd.tmp"
        folder.mkdir(parents=True)
        (folder / "pixels.u8").write_bytes(b"half")
        written = now - 3600 * hours
        os.utime(folder / "pixels.u8", (now, now) if name == "at work" else (written, written))
        os.utime(folder, (written, written))
    load(photos(2), cache)
    left = [path.name for path in folders(cache) if path.suffix == ".tmp"]
    assert left == ["16px-at work.1234abcd.tmp", "16px-young.1234abcd.tmp"]


@pytest.mark.parametrize("harm", ["cut pixels", "no pixels", "cut index", "no index"])
def test_cache_that_a_crash_cut_short_is_built_again(photos, tmp_path, harm):
    root, cache = photos(3), tmp_path / "cache"
    before = load(root, cache)
    wanted = before.pixels.copy()
    (folder,) = (
        path for path in folders(cache) if len(json.loads((path / "index.json").read_text())["names"]) == 3
    )
    del before
    file = folder / ("pixels.u8" if "pixels" in harm else "index.json")
    os.truncate(file, file.stat().st_size - 10) if "cut" in harm else file.unlink()
    assert (load(root, cache).pixels == wanted).all() and not list(cache.glob("*.tmp"))


def sentence(data, cache) -> str:
    with pytest.raises(ConfigError) as caught:
        load(data, cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_full_disk_is_one_sentence_and_leaves_nothing(photos, tmp_path):
    root, cache = photos(120, size=(16, 16)), tmp_path / "tiny"
    cache.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tiny", str(cache)], capture_output=True
        ).returncode
    ):
        pytest.skip("needs the right to mount a small disk")
    try:
        said = sentence(root, cache)
        left = folders(cache)
    finally:
        subprocess.run(["umount", str(cache)], check=True)
    assert said == (
        f"the image cache {cache} cannot be written (no space left on device): "
        "make room there, or type outputs=FOLDER on another disk"
    )
    assert not left


def test_cache_in_an_impossible_place(photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written (not a directory): make room there" in sentence(photos(2), tmp_path / "file")


# ---- batches ----


def test_every_epoch_sees_every_image_once(plain, tmp_path):
    images = load(plain(7), tmp_path / "cache")
    seen = [n for step in range(14) for n in numbers(images.train_batch(step, 3, seed=0))]
    epochs = [seen[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3  # in another order each time


def test_batch_larger_than_the_data(plain, tmp_path):
    images = load(plain(3), tmp_path / "cache")
    assert sorted(numbers(images.train_batch(0, 15, seed=0))) == sorted(5 * [0, 1, 2])


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_parts_of_all_processes_are_the_batch_of_one(photos, tmp_path, world):
    images = load(photos(10), tmp_path / "cache")
    for step in (0, 3):
        whole = images.train_batch(step, 12, seed=5)
        for rank in range(world):
            assert torch.equal(images.train_batch(step, 12, 5, rank, world), whole[rank::world])


BATCHES = """
images, _ = load_data(config, 16, sys.argv[2])
print(*(hashlib.sha256(images.train_batch(s, 4, 7).numpy().tobytes()).hexdigest() for s in (9, 0, 2)))
"""


def test_batch_is_a_pure_function_of_seed_and_step(photos, tmp_path):
    root = photos(6)
    images = load(root, tmp_path / "cache")

    def digest(step, seed=7):
        return hashlib.sha256(images.train_batch(step, 4, seed).numpy().tobytes()).hexdigest()

    here = [digest(step) for step in range(10)]
    there = run(BATCHES, root, tmp_path / "elsewhere", check=True).stdout.split()
    assert there == [here[9], here[0], here[2]]
    assert [digest(step) for step in reversed(range(10))] == here[::-1]  # whatever was drawn before
    assert len(set(here)) == 10 and digest(0, seed=8) not in here
