"""Folders and lists as people have them: no image disappears in silence, and nothing hangs."""

import io
import os
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from loading import load
from PIL import Image
from workbench import ENV, REPO

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.decode import SUFFIXES, Unreadable, decode, read_image
from tok1d.data.left_out import say
from tok1d.data.sources import find_sources


@pytest.fixture(autouse=True)
def nothing_said_yet():
    say.cache_clear()


def encoded(i: int = 0, kind: str = "jpeg") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)).save(out, kind)
    return out.getvalue()


def put(folder: Path, *names: str, kind: str = "jpeg") -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(i, kind))
    return folder


def shard(path: Path, count: int, first: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i in range(first, first + count):
            info = tarfile.TarInfo(f"{i:05}.jpg")
            info.size = len(raw := encoded(i))
            tar.addfile(info, io.BytesIO(raw))


def table(path: Path, rows: int, images: bool) -> None:
    """A parquet file, with a column of images as `datasets` writes it or of names only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"name": [f"{i}.jpg" for i in range(rows)]}
    if images:
        columns["image"] = [{"bytes": encoded(i), "path": None} for i in range(rows)]
    parquet.write_table(pa.table(columns), path)


def every(tmp_path, data, **params) -> list[str]:
    train, val = find_sources(DataConfig(data=data, **params), 16, tmp_path / "cache")
    return sorted(train.names + val.names)


# ---- what lies beside shards, pictures and tables ----


def test_shards_are_found_at_any_depth_whatever_lies_beside_them(tmp_path, capsys):
    root = tmp_path / "set"
    for name in ("train/00000.tar", "train/00001.tar", "val/00000.tar"):
        shard(root / name, 4)
    put(root, "preview.png", "logs/curve.png", "train/samples/a.jpg")
    (root / "_tmp").mkdir()
    (root / "_tmp/00002.tar").write_bytes(b"half of a shard")
    (root / "train/00000.json").write_text("{}")
    table(root / "train/00000.parquet", 100, images=False)
    assert len(every(tmp_path, root)) == 12
    said = capsys.readouterr().out
    assert "3 files (pictures hold 3, shards 12 images here: move one of both away; such as logs/cu" in said
    assert "1 file (a shard in a folder that begins with _; _tmp/00002.tar)" in said


def test_pictures_are_read_where_there_are_more_of_them_than_in_shards(tmp_path, capsys):
    root = put(tmp_path / "set", *(f"{i}.jpg" for i in range(10)))
    shard(root / "some.tar", 3)
    (root / "broken.tar").write_bytes(b"no tar")
    assert every(tmp_path, root) == [f"{i}.jpg" for i in range(10)]
    assert (
        "2 files (shards hold 3, pictures 10 images here: move one of both away;" in capsys.readouterr().out
    )


@pytest.mark.parametrize("named", ["labels.parquet", "data/labels.parquet", "train/deep/labels.parquet"])
def test_tables_of_names_and_state_files_of_other_programs_do_not_matter(tmp_path, named, capsys):
    root = put(tmp_path / "set", *(f"{part}/{i}.jpg" for part in ("train", "test") for i in range(5)))
    table(root / named, 1000, images=False)
    for name in ("state.json", "dataset_dict.json"):
        (root / name).write_text('{"epoch": 3}')
    assert len(every(tmp_path, root)) == 10 and not capsys.readouterr().out


def test_tables_of_images_are_read_where_they_have_more(tmp_path, capsys):
    pytest.importorskip("datasets")
    root = put(tmp_path / "set", "assets/a.png", "assets/b.png", "assets/c.png")
    for part, rows in (("train", 9), ("test", 2)):
        table(root / f"data/{part}-00000-of-00001.parquet", rows, images=True)
    for named in (root, f"hf:{root}"):  # which reads the pictures, if it is left to `datasets`
        assert len(load(named, tmp_path)) == 9
    said = capsys.readouterr().out
    assert "3 files (pictures hold 3, tables 11 images here" in said
    assert "2 rows of the splits test: type hf:" in said and len(load(f"hf:{root}:test", tmp_path)) == 2


def test_a_saved_data_set_and_pictures(tmp_path, capsys):
    datasets = pytest.importorskip("datasets")
    root, features = tmp_path / "set", datasets.Features({"photo": datasets.Image()})
    photos = [{"bytes": encoded(i), "path": None} for i in range(6)]
    datasets.Dataset.from_dict({"photo": photos}, features).save_to_disk(root)
    put(root, "preview.png")
    assert len(load(root, tmp_path)) == 6 and "pictures hold 1, tables 6" in capsys.readouterr().out
    put(root, *(f"{i}.jpg" for i in range(20)))
    assert len(load(root, tmp_path)) == 21 and "tables hold 6, pictures 21" in capsys.readouterr().out


# ---- suffixes ----


def test_every_suffix_that_is_taken_can_be_opened():
    registered = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    by_content = {".jfi", ".jif", ".pjpeg", ".pjp", ".mpo"}  # JPEG under other names
    assert SUFFIXES - registered == by_content


def test_pictures_of_other_names_are_taken_by_their_content(tmp_path):
    names = ["a.jfif", "b.JPE", "c", "d.jpg_large", "e.JPG!d", "f.jpeg.1", "g.thumb"]
    root = put(tmp_path / "set", *names)
    (root / "notes").write_text("no picture")
    (root / "labels.dat").write_bytes(bytes(100))
    (root / "empty").touch()
    assert every(tmp_path, root) == sorted(names) and len(load(root, tmp_path)) == len(names)


def test_pictures_that_cannot_be_opened_are_counted_and_named(tmp_path, capsys):
    root = put(tmp_path / "set", "a.jpg", "b.jpg")
    for name in ("c.heic", "d.HEIC", "e.CR2", "f.svg", "g.zip", "h.tar.gz", "i.mp4", "j.txt"):
        (root / name).write_bytes(b"....ftypheic...." if "heic" in name.lower() else b"II*\0rest")
    assert every(tmp_path, root) == ["a.jpg", "b.jpg"]
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "j.txt" not in said
    for part in (
        "2 files (HEIC needs another library: type pip install pillow-heif; such as c.heic)",
        "1 file (.cr2 is a raw photograph: develop it to .jpg or .png; e.CR2)",
        "1 file (.svg is no photograph that is opened here: save it as .png; f.svg)",
        "1 file (.zip is an archive: unpack it; g.zip)",
        "1 file (.tar.gz is an archive: unpack it; h.tar.gz)",
        "1 file (.mp4 is a video: write its frames as .jpg or .png; i.mp4)",
    ):
        assert part in said
    for name in ("a.jpg", "b.jpg"):
        (root / name).unlink()
    with pytest.raises(ConfigError, match=r"no images in .* but 2 files \(HEIC needs .* put .jpg, .png"):
        every(tmp_path, root)


def test_heic_is_taken_where_its_library_is(tmp_path, monkeypatch):
    raw = b"\0\0\0\x18ftypheic" + bytes(16)
    with pytest.raises(Unreadable, match="type pip install pillow-heif"):
        decode(raw)
    library = types.ModuleType("pillow_heif")  # stands for the real one, which the tests do not need

    def register_heif_opener() -> None:
        opener = lambda file, name: Image.new("RGB", (16, 16))  # noqa: E731
        Image.register_open("HEIF", opener, lambda begins: begins[4:12] == b"ftypheic")

    library.register_heif_opener = register_heif_opener
    monkeypatch.setitem(sys.modules, "pillow_heif", library)
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    (tmp_path / "set").mkdir()
    for i in range(3):
        (tmp_path / f"set/{i}.HEIC").write_bytes(raw)
    assert len(every(tmp_path, tmp_path / "set")) == 3
    assert read_image(tmp_path / "set/0.HEIC")[0].size == (16, 16)


# ---- links, hidden files, folders that cannot be listed ----


def test_one_file_of_two_names_is_one_image(tmp_path, capsys):
    root = put(tmp_path / "set", "cat/a.jpg", "dog/b.jpg")
    put(tmp_path / "elsewhere", "c.jpg")
    (root / "again.jpg").symlink_to(root / "cat/a.jpg")
    for name in ("cat/c.jpg", "dog/c.jpg"):
        (root / name).symlink_to(tmp_path / "elsewhere/c.jpg")
    assert every(tmp_path, root) == ["cat/a.jpg", "cat/c.jpg", "dog/b.jpg"]
    assert "2 files (the same file under another name; such as again.jpg)" in capsys.readouterr().out


def test_broken_links_are_named_and_loops_are_nothing(tmp_path):
    root = put(tmp_path / "set", "a.jpg", "b.jpg")
    (root / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "loop").symlink_to(root / "loop")
    images = load(root, tmp_path, max_unreadable=0.5)
    assert images.names == ["a.jpg", "b.jpg"] and list(images.unreadable) == ["gone.jpg"]


def test_hidden_pictures_are_counted(tmp_path, capsys):
    root = put(tmp_path / "set", "a.jpg", "b.jpg", ".c.jpg", ".ipynb_checkpoints/a-checkpoint.jpg")
    (root / ".git").mkdir()
    (root / ".DS_Store").touch()
    assert every(tmp_path, root) == ["a.jpg", "b.jpg"]
    assert "2 files (hidden; such as .c.jpg)" in capsys.readouterr().out


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, capsys, monkeypatch):
    root, scan = put(tmp_path / "set", "a.jpg", "b.jpg", "closed/c.jpg"), os.scandir

    def refuse(folder):  # as for others than root
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert every(tmp_path, root) == ["a.jpg", "b.jpg"]
    assert "1 file (a folder that cannot be listed; closed)" in capsys.readouterr().out


# ---- lists ----


def test_a_file_listed_twice_is_on_one_side_only(tmp_path, capsys):
    root = put(tmp_path / "set", *(f"{i:02}.jpg" for i in range(10)))
    (root / "link.jpg").symlink_to("03.jpg")
    (root / "other").symlink_to(root)
    again = ["./00.jpg", str(root / "01.jpg"), "../set/02.jpg", "link.jpg", "other/04.jpg", ".//05.jpg"]
    lines = [f"{i:02}.jpg" for i in range(10)] + again
    (root / "list.txt").write_text("\n".join(lines))
    train, val = find_sources(DataConfig(data=root / "list.txt"), 16, tmp_path)
    assert train.names + val.names == lines[:10]
    assert "6 files (the same file under another name; such as ./00.jpg)" in capsys.readouterr().out


def test_names_that_lists_can_hold(tmp_path):
    names = ["#1.jpg", "a b.jpg", "c\x0bd.jpg", "é\u2028.jpg"]
    root = put(tmp_path / "set", *names)
    (root / "list.txt").write_text("# a comment\n" + "\r\n".join(names), encoding="utf-8")
    assert every(tmp_path, root / "list.txt") == sorted(names)


# ---- pipes and devices ----

HANG = """
import os, sys
from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data
for params in sys.argv[2:]:
    try:
        images, val = load_data(DataConfig(max_unreadable=0.9, **eval(params)), 16, sys.argv[1])
        print(len(images) + len(val), {**images.unreadable, **val.unreadable})
    except ConfigError as error:
        print(error)
    print(end="\\f")
"""


def told(cache: Path, *params: dict, **env: str) -> list[str]:
    """What a process says of each, that would be killed if it hung."""
    command = [sys.executable, "-c", HANG, str(cache), *map(repr, params)]
    done = subprocess.run(
        command, env=ENV | {"PYTHONPATH": str(REPO)} | env, capture_output=True, timeout=60, check=True
    )
    return done.stdout.decode("utf-8", "replace").split("\f")[: len(params)]


def test_pipes_and_devices_do_not_hang(tmp_path):
    root = put(tmp_path / "set", "b.jpg", "c.jpg", "z.jpg")
    for name in ("a.jpg", "a.parquet", "odd", "state.json", "labels.json"):
        os.mkfifo(root / name)
    (root / "d.jpg").symlink_to("/dev/zero")
    (tmp_path / "list.txt").write_text("\n".join(["a.jpg", "/dev/zero", "/dev/tty", "b.jpg", "z.jpg"]))
    for name in ("pipe.tar", "pipe.txt"):
        os.mkfifo(tmp_path / name)
    whole, listed, labeled, tar, text = told(
        tmp_path / "cache",
        {"data": str(root)},
        {"data": str(tmp_path / "list.txt"), "data_root": str(root)},
        {"data": str(root), "bdd_labels": str(root / "labels.json")},
        {"data": str(tmp_path / "pipe.tar")},
        {"data": str(tmp_path / "pipe.txt")},
    )
    assert "3 {" in whole and whole.count(".jpg': 'no file but a pipe or a device'") == 2
    assert "'/dev/zero': 'no file but a pipe or a device'" in listed
    assert "there is no" in labeled and "pipe.tar is no file" in tar and "there is no" in text


# ---- locales ----


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_names_and_lists_in_a_locale_of_ascii(tmp_path, locale):
    root = put(tmp_path / "set", "café.jpg", "日本.jpg", "x.jpg")
    (root / "list.txt").write_text("café.jpg\n日本.jpg\nx.jpg\n", encoding="utf-8")
    ascii_only = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    cases = [{"data": str(root)}, {"data": str(root / "list.txt")}]
    assert all("3 {}" in said for said in told(tmp_path / "cache", *cases, **ascii_only))
