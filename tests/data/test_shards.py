"""Shards: tar files as webdataset writes them, read in any order, named in the usual ways."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from loading import load, sentence
from PIL import Image

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.shards import find
from tok1d.data.sources import find_sources

webdataset = pytest.importorskip("webdataset")


def picture(i: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8))


def encoded(i: int, kind: str = "png") -> bytes:
    out = io.BytesIO()
    picture(i).save(out, kind)
    return out.getvalue()


@pytest.fixture
def shards(tmp_path) -> Path:
    """Eleven images in shards/train-000000.tar … 000002.tar, four each, written by webdataset itself."""
    (tmp_path / "shards").mkdir()
    pattern = str(tmp_path / "shards/train-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0) as writer:
        for i in range(11):
            writer.write({"__key__": f"{i:04}", "png": encoded(i), "json": {"index": i}, "cls": i % 3})
    return tmp_path / "shards"


def add(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


@pytest.mark.parametrize("named", ["{000000..000002}", "00000{0,1,2}", "*", "folder", "list of one"])
def test_shards_are_named_in_the_usual_ways(shards, tmp_path, named):
    where = shards if named == "folder" else shards / f"train-{named}.tar"
    where = shards / "train-000001.tar" if named == "list of one" else where
    train, val = find_sources(DataConfig(data=where), 16, tmp_path / "cache")
    prefix = lambda i: f"train-00000{i // 4}.tar/{i:04}.png"  # noqa: E731
    wanted = range(4, 8) if named == "list of one" else range(11)
    assert train.names + val.names == [prefix(i) for i in wanted]


def test_pixels_are_those_of_the_same_files_in_a_folder(shards, tmp_path):
    for i in range(11):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / f"folder/{i:04}.png").write_bytes(encoded(i))
    packed, plain = load(shards, tmp_path), load(tmp_path / "folder", tmp_path)
    assert (packed.pixels == plain.pixels).all() and len(packed) == 11
    streamed = load(shards, tmp_path, decode="stream")
    assert torch.equal(streamed.train_batch(3, 6, seed=1), plain.train_batch(3, 6, seed=1))
    assert len(load(shards, tmp_path, max_images=5)) == 5


def test_index_is_kept_and_renewed(shards, tmp_path):
    before = load(shards, tmp_path)
    kept = sorted((tmp_path / "cache/shards").iterdir())
    assert len(kept) == 3
    index = kept[0].read_text()
    kept[0].write_text('{"members": {}, "left_out": {}}')  # so we see that it is used
    assert len(find_sources(DataConfig(data=shards), 16, tmp_path / "cache")[0].names) < 8
    kept[0].write_text(index)
    add(shards / "train-000000.tar", {"0000.png": encoded(50), "x/0001.png": encoded(51)})
    add(shards / "train-000001.tar", {"0004.png": encoded(4)})
    after = load(shards, tmp_path)
    assert len(after) == 6 and after.fingerprint != before.fingerprint
    assert after.names[:2] == ["train-000000.tar/0000.png", "train-000000.tar/x/0001.png"]


def test_copy_elsewhere_has_the_same_fingerprint(shards, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "elsewhere")
    assert load(copy, tmp_path).fingerprint == load(shards, tmp_path).fingerprint


def test_one_image_a_sample(tmp_path):
    members = {
        "a.seg.png": encoded(1), "a.jpg": encoded(2, "jpeg"), "a.json": b"{}", "b.WEBP": encoded(3, "webp"),
        "._c.jpg": b"left by a Mac", "d.depth.png": encoded(4), "e.txt": b"no image",
        "deep/a.jpeg": encoded(5),
    }  # fmt: skip
    train, val = find_sources(DataConfig(data=add(tmp_path / "odd.tar", members)), 16, tmp_path / "cache")
    assert train.names + val.names == [
        "odd.tar/a.jpg", "odd.tar/b.WEBP", "odd.tar/d.depth.png", "odd.tar/deep/a.jpeg"
    ]  # fmt: skip
    assert (np.asarray(train.read("odd.tar/d.depth.png")[0]) == np.asarray(picture(4))).all()


def test_what_is_said_of_shards_that_are_not_there_or_not_whole(shards, tmp_path):
    said = sentence(shards / "train-{000002..000004}.tar", tmp_path)
    assert "there is no" in said and "train-000003.tar: type data=train-{0000..0099}.tar" in said
    assert "no*.tar: type data=" in sentence(shards / "no*.tar", tmp_path)
    whole = (shards / "train-000002.tar").read_bytes()
    for length in (200, 1500, 7000):
        (shards / "train-000002.tar").write_bytes(whole[:length])
        assert "train-000002.tar is no plain tar file" in sentence(shards, tmp_path), length
    with tarfile.open(tmp_path / "zip.tar", "w:gz") as tar:
        tar.add(shards / "train-000000.tar")
    assert "unpack .tar.gz" in sentence(tmp_path / "zip.tar", tmp_path)
    assert "there are no images in" in sentence(add(tmp_path / "text.tar", {"a.txt": b"a"}), tmp_path)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    members = {f"{i}.png": encoded(i) for i in range(5)} | {"bad.png": b"no image"}
    data = add(tmp_path / "some.tar", members)
    with pytest.raises(ConfigError, match=r"1 of 6 images .* the first is some.tar/bad.png \(not an image\)"):
        load(data, tmp_path)
    assert len(load(data, tmp_path, max_unreadable=0.5)) == 5


def test_braces(tmp_path):
    raw = {"a.png": encoded(0)}
    tars = [add(tmp_path / f"{name}.tar", raw) for name in ("x-08", "x-09", "x-10", "yy-10", "odd{", "{7}")]
    for pattern, wanted in {
        "x-{08..10}": tars[:3], "x-{08..10..2}": [tars[0], tars[2]], "{yy,x}-10": [tars[3], tars[2]],
        "x-0{9,8}": [tars[1], tars[0]], "{x-{09,10},yy-10}": tars[1:4], "x-{10..09}": [tars[2], tars[1]],
        "odd{": [tars[4]], "{7}": [tars[5]],
    }.items():  # fmt: skip
        assert find(str(tmp_path / f"{pattern}.tar")) == wanted, pattern
    assert sentence(tmp_path / "x-{08..10.tar", tmp_path).endswith(
        "x-{08..10.tar lacks a brace: type data=train-{0000..0099}.tar"
    )


# ---- names and members as people have them ----


def read_names(path: Path, tmp_path) -> list[str]:
    train, val = find_sources(DataConfig(data=path), 16, tmp_path / "cache")
    return [name.partition("/")[2] for name in train.names + val.names]


@pytest.mark.parametrize(
    "name", ["frame_{0}.{1:02}", "2024-01-01T10.{0:02}.{1:02}", "v1.{0}.{1}", "{0}.{1}.left", "a.b/{0}.x{1}"]
)
def test_dots_in_names_cost_nothing(tmp_path, name):
    wanted = [f"{name.format(i // 5, i % 5)}.jpg" for i in range(20)]
    tar = add(tmp_path / "dots.tar", {each: encoded(i) for i, each in enumerate(wanted)})
    assert read_names(tar, tmp_path) == wanted


def test_maps_beside_images_are_counted(tmp_path, capsys):
    members = [
        "a.0.jpg",
        "a.0.seg.png",
        "a.0.depth.png",
        "b.mask.png",
        "b.image.jpg",
        "c.png",
        "c.webp",
        "d.seg.png",
    ]
    tar = add(tmp_path / "maps.tar", {each: encoded(i) for i, each in enumerate(members)})
    assert read_names(tar, tmp_path) == ["a.0.jpg", "b.image.jpg", "c.png", "d.seg.png"]
    said = capsys.readouterr().out
    assert "3 files (a map or preview of another image; such as maps.tar/a.0.seg.png)" in said
    assert "1 file (another format of the image before; maps.tar/c.webp)" in said


def test_of_members_of_one_name_the_last_counts_in_the_place_of_the_first(tmp_path, capsys):
    tar = add(tmp_path / "x.tar", {"a.png": encoded(0), "b.png": encoded(1), "c.json": b"{}"})
    with tarfile.open(tar, "a") as archive:
        for name, raw in {"./a.png": encoded(7), "c.json": b"[]"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    train, val = find_sources(DataConfig(data=tar), 16, tmp_path / "cache")
    assert train.names + val.names == ["x.tar/./a.png", "x.tar/b.png"]
    assert (np.asarray(train.read("x.tar/./a.png")[0]) == np.asarray(picture(7))).all()
    assert "1 file (replaced by a later file of the same name; x.tar/a.png)" in capsys.readouterr().out


def test_hidden_members_are_left_alone_but_not_those_of_a_dot(tmp_path, capsys):
    names = [
        "./a.png",
        "./b/c.png",
        ".d.png",
        "e/._f.png",
        "./.git/g.png",
        "__MACOSX/._a.png",
        ".hidden/notes.txt",
    ]
    tar = add(tmp_path / "hidden.tar", {name: encoded(i) for i, name in enumerate(names)})
    assert read_names(tar, tmp_path) == ["./a.png", "./b/c.png"]
    assert "4 files (hidden; such as hidden.tar/.d.png)" in capsys.readouterr().out


def test_links_in_a_tar_are_the_files_they_lead_to(tmp_path, capsys):
    tar = add(tmp_path / "links.tar", {"blobs/1": encoded(1), "a.png": encoded(2)})
    with tarfile.open(tar, "a") as archive:
        for name, kind, target in [
            ("x/b.png", tarfile.SYMTYPE, "../blobs/1"),
            ("c.png", tarfile.LNKTYPE, "a.png"),
            ("d.png", tarfile.SYMTYPE, "/elsewhere/d.png"),
            ("e.png", tarfile.SYMTYPE, "e.png"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    train, val = find_sources(DataConfig(data=tar), 16, tmp_path / "cache")
    assert train.names + val.names == ["links.tar/a.png", "links.tar/x/b.png"]
    assert (np.asarray(val.read("links.tar/x/b.png")[0]) == np.asarray(picture(1))).all()
    said = capsys.readouterr().out
    assert "1 file (the same file under another name; links.tar/c.png)" in said
    assert "2 files (a link to what is not there; such as links.tar/d.png)" in said


def test_other_formats_in_a_tar_are_taken_or_named(tmp_path, capsys):
    names = ["a.jfif", "b.JPE", "c.heic", "d.zip", "e.cls"]
    tar = add(tmp_path / "kinds.tar", {name: encoded(i, "jpeg") for i, name in enumerate(names)})
    assert read_names(tar, tmp_path) == ["a.jfif", "b.JPE"]
    said = capsys.readouterr().out
    assert "1 file (HEIC needs" in said and "1 file (.zip is an archive: unpack it; kinds.tar/d.zip)" in said
    only = add(tmp_path / "only.tar", {"c.heic": b"x"})
    assert "there are no images in" in sentence(only, tmp_path) and "but 1 file (HEIC" in sentence(
        only, tmp_path
    )
