"""Where images come from: folders, lists, BDD100K labels, toy roads; and what is said when none do."""

import json
import os

import pytest

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data
from tok1d.data.sources import TOY_VAL_START, find_sources


def names(**params) -> tuple[list[str], list[str]]:
    train, val = find_sources(DataConfig(**params), 16)
    return train.names, val.names


def every(**params) -> list[str]:
    train, val = names(**params)
    return train + val


def sentence(**params) -> str:
    with pytest.raises(ConfigError) as caught:
        find_sources(DataConfig(**params), 16)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- folders ----


def test_folder_is_read_in_depth_but_not_what_is_hidden(photos, tmp_path):
    root = photos(2)
    (root / "b.png").rename(root / "B.JPeG")
    photos(1, "photos/deep/er", start=2)
    photos(1, "photos/.hidden", start=3)
    photos(1, "photos/.git/deep", start=4)
    (root / "._a.png").write_bytes(b"left by a Mac")
    (root / "notes.txt").write_text("no image")
    (root / "folder.jpg").mkdir()
    assert every(data=str(root)) == ["B.JPeG", "a.png", "deep/er/c.png"]


def test_a_hidden_folder_above_the_data_does_not_matter(photos):
    assert every(data=photos(2, ".scratch/photos")) == ["a.png", "b.png"]


def test_linked_folders_are_followed_once(photos, tmp_path):
    root, elsewhere = photos(1), photos(2, "elsewhere", start=1)
    (root / "linked").symlink_to(elsewhere)
    (root / "loop").symlink_to(root)
    assert every(data=root) == ["a.png", "linked/b.png", "linked/c.png"]


def test_nothing_to_find(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("a.png")
    assert "there are no images in empty: put .jpg, .png," in sentence(data="empty")
    assert sentence(data="nosuch").startswith(
        "there is no nosuch: type data=toy-roads, an image folder, or a .txt"
    )
    assert sentence(data="list.csv").startswith("list.csv is a single file: type data=")
    assert sentence(data=photos(1) / "a.png").endswith(
        "type data=toy-roads, an image folder, or a .txt file of image paths"
    )
    assert "photos has a single image: add more, or type val_data=FOLDER" in sentence(data="photos")
    photos(2)
    assert sentence(data="photos", val_data="nosuch").startswith("there is no nosuch: type val_data=")


# ---- list files ----


def test_list_file_with_all_its_quirks(photos, tmp_path):
    photos(4)
    outside = photos(1, "out side", start=5) / "f.png"
    lines = [
        "# my list",
        "photos/b.png",
        "",
        "  photos/a.png  ",
        "photos/b.png",
        str(outside),
        "photos/missing.png",
    ]
    (tmp_path / "list.TXT").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    train, val = find_sources(DataConfig(data=str(tmp_path / "list.TXT")), 16)
    assert train.names + val.names == ["photos/b.png", "photos/a.png", str(outside), "photos/missing.png"]
    assert train.read(str(outside))[0].size == train.read("photos/a.png")[0].size == (40, 30)


def test_list_file_with_a_root(photos, tmp_path):
    root = photos(2)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/mine.txt").write_text("b.png\na.png\n")
    train, val = find_sources(DataConfig(data=tmp_path / "lists/mine.txt", data_root=root), 16)
    assert (train.names, val.names) == (["b.png"], ["a.png"])
    assert train.read("b.png")[0].size == (40, 30)
    assert sentence(data=tmp_path / "lists/mine.txt", data_root="nosuch") == (
        "there is no folder nosuch: type data_root=FOLDER"
    )


def test_list_files_that_list_nothing(tmp_path):
    (tmp_path / "none.txt").write_text("# later\n\n")
    (tmp_path / "utf16.txt").write_text("a.png\nb.png\n", encoding="utf-16")
    assert "none.txt lists no images: write one image path a line" in sentence(data=tmp_path / "none.txt")
    assert "utf16.txt cannot be read: save it as UTF-8 text" in sentence(data=tmp_path / "utf16.txt")


# ---- files that cannot be read ----


def bad_list(photos, tmp_path, good: int, bad: int) -> str:
    photos(good, size=(16, 16))
    found = sorted(os.listdir(tmp_path / "photos"))
    lines = [f"photos/{name}" for name in found] + [f"photos/gone{i}.png" for i in range(bad)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return str(tmp_path / "list.txt")


def load(tmp_path, **params):
    return load_data(DataConfig(**params), 16, tmp_path / "cache")


def test_more_than_one_percent_stops_with_one_sentence(photos, tmp_path):
    listed = bad_list(photos, tmp_path, 98, 2)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, data=listed, val_data="toy-roads", toy_val_images=1)
    assert str(caught.value) == (
        f"2 of 100 images of {listed} cannot be read, the first is photos/gone0.png "
        "(no such file or directory): mend or remove them, or type max_unreadable=0.02 to go on without"
    )
    images, _ = load(tmp_path, data=listed, val_data="toy-roads", toy_val_images=1, max_unreadable=0.02)
    assert len(images) == 98 and list(images.unreadable) == ["photos/gone0.png", "photos/gone1.png"]


def test_one_percent_goes_on_and_says_which(photos, tmp_path, capsys):
    listed = bad_list(photos, tmp_path, 99, 1)
    images, _ = load(tmp_path, data=listed, val_data="toy-roads", toy_val_images=1)
    assert images.unreadable == {"photos/gone0.png": "no such file or directory"}
    assert len(images) == 99 and "photos/gone0.png" not in images.names
    said = capsys.readouterr().out
    assert said.startswith("left out: 1 of 100 images") and "photos/gone0.png" in said


def test_all_unreadable_never_goes_on(tmp_path):
    (tmp_path / "list.txt").write_text("x.png\ny.png\n")
    with pytest.raises(ConfigError, match=r"the first is x.png .*: mend them, or type data=PATH"):
        load(tmp_path, data=str(tmp_path / "list.txt"), max_unreadable=1)


# ---- BDD100K ----

WEATHERS = ["clear", "rainy", "clear", "snowy", "clear"]
HOURS = ["daytime", "night", "night", "daytime", "undefined"]


def attributes(i: int) -> dict:
    return {"weather": WEATHERS[i], "timeofday": HOURS[i], "scene": "city street"}


def as_list(folder, stems):
    entries = [{"name": f"{s}.jpg", "attributes": attributes(i), "labels": []} for i, s in enumerate(stems)]
    (folder / "labels.json").write_text(json.dumps(entries))
    return folder / "labels.json"


def as_frames(folder, stems):
    as_list(folder, stems)
    whole = {"frames": json.loads((folder / "labels.json").read_text()), "config": {}}
    (folder / "labels.json").write_text(json.dumps(whole))
    return folder / "labels.json"


def as_folder(folder, stems):
    """The official layout: attributes beside name and frames."""
    for i, stem in enumerate(stems):
        whole = {"name": stem, "frames": [{"timestamp": 10000, "objects": []}], "attributes": attributes(i)}
        (folder / "labels/100k").mkdir(parents=True, exist_ok=True)
        (folder / f"labels/100k/{stem}.json").write_text(json.dumps(whole))
    return folder / "labels"


def as_nameless_folder(folder, stems):
    as_folder(folder, stems)
    for file in (folder / "labels/100k").iterdir():
        file.write_text(json.dumps({"attributes": json.loads(file.read_text())["attributes"]}))
    return folder / "labels"


def as_folder_of_lists(folder, stems):
    (folder / "labels").mkdir()
    entries = json.loads(as_list(folder, stems).read_text())
    (folder / "labels/det_train.json").write_text(json.dumps(entries[:3]))
    (folder / "labels/det_val.json").write_text(json.dumps(entries[3:]))
    return folder / "labels"


@pytest.mark.parametrize("layout", [as_list, as_frames, as_folder, as_nameless_folder, as_folder_of_lists])
def test_bdd_labels(photos, tmp_path, layout, capsys):
    images, labels = photos(6), layout(tmp_path, "abcde")  # f has no label
    params = dict(data=images, val_data=images, bdd_labels=labels)

    def train(**asked) -> list[str]:
        return names(**params, **asked)[0]

    assert train() == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert "left out: 1 of 6 images" in capsys.readouterr().out
    assert train(weather="clear") == ["a.png", "c.png", "e.png"]
    assert train(weather=["rainy", "snowy"]) == ["b.png", "d.png"]
    assert train(weather="clear", timeofday="night") == ["c.png"]
    assert train(scene="city street", timeofday=["undefined"]) == ["e.png"]
    loaded, _ = load(tmp_path, **params, timeofday="night")
    assert loaded.labels == [attributes(1), attributes(2)]
    said = sentence(**params, weather="sunny")
    assert said == f"weather=sunny is in no label of {images}: type one of clear, rainy, snowy"
    assert sentence(**params, weather="snowy", timeofday="night") == (
        f"no image of {images} has weather=snowy and timeofday=night: ask for fewer attributes at once"
    )


def test_bdd_labels_that_do_not_fit(photos, tmp_path):
    images = photos(3)
    assert "weather needs labels: type bdd_labels=PATH" in sentence(data=images, weather="clear")
    assert sentence(data=images, bdd_labels="nosuch").startswith("there is no nosuch: type bdd_labels=PATH")
    others = as_list(tmp_path, "xyz")
    assert "has no label for any image of" in sentence(data=images, bdd_labels=others)
    for content in ('[{"name": "a.jpg"}]', '{"a": 1}', "[1]", "{", "3", '[{"name": "a", "attributes": [1]}]'):
        (tmp_path / "odd.json").write_text(content)
        assert "odd.json is not in BDD100K's format" in sentence(
            data=images, bdd_labels=tmp_path / "odd.json"
        )


def test_missing_or_null_attributes_count_as_none(photos, tmp_path):
    entries = [
        {"name": s, "attributes": {"weather": w}}
        for s, w in zip("abc", ["clear", None, "rainy"], strict=True)
    ]
    (tmp_path / "l.json").write_text(json.dumps(entries))
    params = dict(data=photos(3), bdd_labels=tmp_path / "l.json")
    assert sentence(**params, weather="snowy").endswith("type one of clear, rainy")
    assert sentence(**params, scene="tunnel").endswith("leave scene out")


# ---- toy roads ----


def test_toy_roads_and_their_attributes():
    train, val = find_sources(DataConfig(toy_images=60, toy_val_images=40), 16)
    assert train.names == [f"toy-{i}" for i in range(60)] and not set(train.names) & set(val.names)
    weathers = {labels["weather"] for labels in train.labels}
    kept, _ = find_sources(DataConfig(toy_images=60, toy_val_images=40, weather="rainy"), 16)
    assert {labels["weather"] for labels in kept.labels} == {"rainy"} and 0 < len(kept.names) < 60
    assert kept.names == [
        n for n, labels in zip(train.names, train.labels, strict=True) if labels["weather"] == "rainy"
    ]
    assert sentence(toy_images=60, weather="sunny").endswith(f"type one of {', '.join(sorted(weathers))}")


def test_toy_roads_at_a_size_they_cannot_have():
    with pytest.raises(ConfigError, match="image_size=8: type image_size=256"):
        find_sources(DataConfig(), 8)


# ---- validation ----


def test_hold_out_is_the_last_five_percent(photos):
    train, val = names(data=photos(100, size=(8, 8)))
    assert (len(train), len(val)) == (95, 5)
    assert train + val == sorted(train + val) and not set(train) & set(val)


@pytest.mark.parametrize(("count", "held"), [(2, 1), (19, 1), (40, 2), (59, 2)])
def test_hold_out_of_few(photos, count, held):
    train, val = names(data=photos(count, size=(8, 8)))
    assert (len(train), len(val)) == (count - held, held)


def test_max_images_are_the_first(photos):
    root = photos(10, size=(8, 8))
    assert names(data=root, max_images=4) == (["a.png", "b.png", "c.png"], ["d.png"])
    assert every(data=root, max_images=99) == every(data=root)


def test_validation_images_of_their_own(photos):
    mine, theirs = photos(1), photos(2, "val", start=5)
    assert names(data=mine, val_data=theirs) == (["a.png"], ["f.png", "g.png"])
    assert names(data="toy-roads", toy_images=2, val_data=theirs) == (["toy-0", "toy-1"], ["f.png", "g.png"])
    assert names(data=mine, val_data="toy-roads", toy_val_images=1) == (["a.png"], [f"toy-{TOY_VAL_START}"])
