"""Pixels: those of the files, from a cache that can be trusted."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from caches import load, run
from PIL import Image

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_images
from tok1d.data.decode import center_crop, resize
from tok1d.data.sources import find_sources


def source_of(data):
    return find_sources(DataConfig(data=data, val_data="toy-roads", toy_val_images=1), 16)[0]


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


# ---- pixels ----


def test_pixels_are_those_of_the_files(photos, tmp_path):
    root = photos(2, size=(40, 30))
    photos(1, size=(30, 47), start=2)
    images = load(root, tmp_path / "cache")
    assert [image.shape for image in images] == [(16, 21, 3), (16, 21, 3), (25, 16, 3)]
    for i, name in enumerate(images.names):
        wanted = resize(Image.open(root / name), 16)
        assert (images[i] == wanted).all()
        assert (images.center_crops([i])[0].permute(1, 2, 0).numpy() == center_crop(wanted, 16)).all()


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
    spoilt[-1] ^= 255  # one color of one pixel
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
    left = list(cache.glob(".*.tmp"))
    assert len(left) == 1 and not folders(cache)
    images = load(root, cache)
    assert len(images) == 160 and (images.pixels == load(root, tmp_path / "clean").pixels).all()
    assert not left[0].exists()  # its process is gone


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
