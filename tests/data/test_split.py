"""Which images are held out, and what is said of validation images that are training images too."""

import itertools
import shutil

import numpy as np
import pytest
from PIL import Image

from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data
from tok1d.data.left_out import say
from tok1d.data.sources import find_sources
from tok1d.data.split import hold_out


@pytest.fixture(autouse=True)
def nothing_said_yet():
    say.cache_clear()


def held(names, how: str = "tail") -> list[int]:
    kept, out = hold_out(names, how, "here")
    assert not set(kept) & set(out) and kept == sorted(kept) and out == sorted(out)
    assert how == "block" or len(kept) + len(out) == len(names)
    return out


def flat(count: int) -> list[str]:
    return [f"{i:06}.jpg" for i in range(count)]


def folders(*counts: int) -> list[str]:
    return [f"{chr(97 + k)}/{i:03}.jpg" for k, count in enumerate(counts) for i in range(count)]


@pytest.mark.parametrize("how", ["tail", "every", "block"])
@pytest.mark.parametrize("count", [2, 3, 5, 19, 20, 21, 40, 99, 100, 2000])
def test_a_twentieth_is_held_out_and_some_are_trained_on(count, how):
    kept, out = hold_out(flat(count), how, "here")
    assert len(out) == max(1, count // 20) and len(kept) >= max(1, count * 3 // 4 - 2)


def test_the_end_of_each_class_is_held_out():
    names = folders(40, 100, 20, 5, 1)
    by_class = {c: [names[i] for i in held(names) if names[i][0] == c] for c in "abcde"}
    assert [len(images) for images in by_class.values()] == [2, 5, 1, 1, 0]
    assert by_class["b"] == [f"b/{i:03}.jpg" for i in range(95, 100)]


def test_classes_in_shards_and_images_without_folders():
    names = [f"{shard}.tar/{c}/{i}.jpg" for shard in "xy" for c in "ab" for i in range(20)]
    assert [names[i] for i in held(names)] == [f"y.tar/{c}/{i}.jpg" for c in "ab" for i in (18, 19)]
    names = [f"{shard}.tar/{i}.jpg" for shard in "xy" for i in range(20)]
    assert held(names) == [38, 39]


def test_folders_of_few_images_do_not_lose_half_of_them():
    assert held(folders(*[2] * 20)) == [38, 39] and held(folders(*[1] * 20)) == [19]


def test_every_twentieth_is_spread_over_all():
    out = held(flat(2000), "every")
    assert {b - a for a, b in itertools.pairwise(out)} == {20} and out[0] == 10


def test_blocks_of_a_video_have_nothing_beside_them(capsys):
    kept, out = hold_out(flat(2000), "block", "here")
    blocks = [
        len(list(group)) for _, group in itertools.groupby(enumerate(out), lambda pair: pair[1] - pair[0])
    ]
    assert blocks == [20] * 5 and min(abs(a - b) for a in kept for b in out) == 21
    assert capsys.readouterr().out == (
        "left out of here: 200 images beside the ones that hold_out=block holds out\n"
    )


def test_gaps_end_where_another_drive_begins():
    names = folders(*[100] * 10)  # 50 held out, ten in the middle of every second drive
    kept, out = hold_out(names, "block", "here")
    assert len(out) == 50 and len(kept) >= 850
    cut = folders(200, 200)
    cut = cut[:195] + cut[200:]  # a block may begin or end with a drive
    kept, _ = hold_out(cut, "block", "here")
    assert len(kept) >= len(cut) - 19 - 40


def test_labels_stay_with_their_images(tmp_path, photos):
    for c in ("cat", "dog"):
        photos(10, f"set/{c}", size=(8, 8))
    entries = ", ".join(
        f'{{"name": "{chr(97 + i)}.png", "attributes": {{"weather": "w{i}"}}}}' for i in range(10)
    )
    (tmp_path / "labels.json").write_text(f"[{entries}]")
    config = DataConfig(data=tmp_path / "set", bdd_labels=tmp_path / "labels.json")
    for source in find_sources(config, 16):
        for name, labels in zip(source.names, source.labels, strict=True):
            assert labels["weather"] == f"w{ord(name[-5]) - 97}"


# ---- images in both sets ----


def said(capsys, tmp_path, **params) -> str:
    load_data(DataConfig(**params), 16, tmp_path / "cache")
    return "".join(line for line in capsys.readouterr().out.splitlines(True) if "left out" not in line)


def test_the_same_images_for_both_are_said_to_be(photos, tmp_path, capsys):
    root = photos(4)
    wanted = "4 of 4 validation images are training images too, the first is a.png: type val_data=FOLDER"
    for val in (root, f"{root}/", tmp_path / "photos" / ".." / "photos"):
        say.cache_clear()
        assert said(capsys, tmp_path, data=root, val_data=val).startswith(wanted)
    say.cache_clear()
    assert said(capsys, tmp_path, data=root, val_data=root, decode="stream").startswith(wanted)


def test_overlapping_lists_and_folders_are_counted(photos, tmp_path, capsys):
    root = photos(10)
    (tmp_path / "some.txt").write_text("photos/a.png\n./photos/b.png\n")
    got = said(capsys, tmp_path, data=root, val_data=tmp_path / "some.txt")
    assert got.startswith("2 of 2 validation images are training images too, the first is photos/a.png")


def test_copies_are_said_to_look_alike(photos, tmp_path, capsys):
    root = photos(6)
    shutil.copytree(root, tmp_path / "copy")
    photos(3, "copy", start=10)
    got = said(capsys, tmp_path, data=root, val_data=tmp_path / "copy")
    assert got.startswith(
        "6 of 9 validation images look like training images, such as a.png like a.png: type val"
    )
    assert "hold_out" not in got


def test_frames_beside_training_frames_are_said_to_look_alike(tmp_path, capsys):
    (tmp_path / "drive").mkdir()
    x, y = np.arange(64), np.arange(48)[:, None]
    for i in range(200):  # waves that wander and turn
        frame = 128 + 100 * np.sin((x + i / 4) / 9 + y * i / 2000)
        Image.fromarray(frame.astype(np.uint8)).save(tmp_path / f"drive/{i:03}.png")
    got = said(capsys, tmp_path, data=tmp_path / "drive", hold_out="every")
    assert "validation images look like training images" in got
    assert got.endswith("type hold_out=block for frames of a video, or val_data=FOLDER of other images\n")


def test_other_images_and_toy_roads_say_nothing(photos, tmp_path, capsys):
    assert said(capsys, tmp_path, data=photos(60)) == ""
    assert said(capsys, tmp_path, toy_images=30, toy_val_images=10) == ""
    assert said(capsys, tmp_path, data=photos(60), val_data="toy-roads", toy_val_images=10) == ""
