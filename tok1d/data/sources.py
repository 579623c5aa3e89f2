"""Where images come from: the built-in toy roads, a folder, a list file, BDD100K by attributes.

Which files are taken is in `tok1d.data.folders` and `tok1d.data.left_out`, which are held out in `split`.

A `Source` is only a list of names with a way to read each; `tok1d.data.dataset` turns it into pixels. Shards
are in `tok1d.data.shards`, Hugging Face data sets in `tok1d.data.hf_datasets`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data import hf_datasets, shards
from tok1d.data.decode import Picture, read_image
from tok1d.data.folders import listed, look_into, places
from tok1d.data.left_out import enumerated, say, say_left_out
from tok1d.data.split import hold_out
from tok1d.data.toy_roads import draw, scene, things

Labels = dict[str, str]  # weather, timeofday, scene
ATTRIBUTES = ("weather", "timeofday", "scene")
TOY_VAL_START = 1_000_000  # toy-roads images from here on are for validation
TOY_FILES = [Path(str(module.__file__)) for module in (scene, draw, things)]
TOY_VERSION = hashlib.sha256(b"".join(file.read_bytes() for file in TOY_FILES)).hexdigest()


class Source(NamedTuple):
    names: list[str]
    read: Callable[[str], tuple[Picture, str]]  # name -> RGB image and a hash of it; raises `Unreadable`
    stamp: Callable[[str], str]  # name -> a cheap text that changes when the image does
    place: Callable[[str], str]  # name -> where the image lies: the same in every source that has it
    where: str
    labels: list[Labels] | None = None

    def take(self, keep: Sequence[int]) -> Source:
        labels = [self.labels[i] for i in keep] if self.labels else None
        return self._replace(names=[self.names[i] for i in keep], labels=labels)


def find_sources(
    config: DataConfig, size: int, cache: str | Path = "outputs/.cache"
) -> tuple[Source, Source]:
    """The training and the validation images that `config` asks for (toy roads drawn at `size` pixels).

    The `cache` folder keeps what hub data sets and shards need. Raises `ConfigError`, one sentence, when
    there are no images.
    """
    train = _find("data", config.data, range(config.toy_images), config, size, Path(cache))
    if config.val_data or config.data == "toy-roads":
        drawn = range(TOY_VAL_START, TOY_VAL_START + config.toy_val_images)
        return train, _find("val_data", config.val_data or "toy-roads", drawn, config, size, Path(cache))
    if len(train.names) < 2:
        raise ConfigError(f"{config.data} has a single image: add more, or type val_data=FOLDER")
    kept, held = hold_out(train.names, config.hold_out, config.data)
    return train.take(kept), train.take(held)


def _find(parameter: str, where: str, drawn: range, config: DataConfig, size: int, cache: Path) -> Source:
    path = Path(native(where)).expanduser()
    if where == "toy-roads":
        source = _toy(drawn, size)
    elif where.startswith(hf_datasets.PREFIX):
        source = Source(*hf_datasets.open_dataset(where, config.max_images, cache), where)
    elif tars := shards.find(str(path)):
        source = Source(*shards.open_shards(tars, where, cache), where)
    elif path.is_dir():
        source = _folder(where, path, cache)
    else:
        source = _list(parameter, where, path, config.data_root)
    source = _filtered(source, config)
    return source.take(range(config.max_images)) if 0 < config.max_images < len(source.names) else source


def _toy(indices: range, size: int) -> Source:
    if not 16 <= size <= 1024:
        raise ConfigError(f"toy-roads cannot be drawn at image_size={size}: type image_size=256, 16 to 1024")

    def read(name: str) -> tuple[Image.Image, str]:
        image = draw.draw_scene(int(name.removeprefix("toy-")), size)
        return image, hashlib.sha256(image.tobytes()).hexdigest()

    labels = [scene.labels(i)._asdict() for i in indices]
    names = [f"toy-{i}" for i in indices]
    return Source(names, read, lambda name: TOY_VERSION, lambda name: name, "toy-roads", labels)


def _folder(where: str, path: Path, cache: Path) -> Source:
    """What a folder has most images in: pictures, shards, or tables. What that leaves out is said."""
    found = look_into(path)
    tables = len(found.tables) or hf_datasets.saved_in(path)
    images = {"pictures": len(found.pictures), "shards": len(found.shards), "tables": int(tables)}
    if sum(map(bool, images.values())) > 1:  # so many files; how many images?
        images["shards"] = shards.count(found.shards, cache)
        images["tables"] = hf_datasets.rows_below(path, found.tables)
    if not any(images.values()):  # shards or tables say what they lack
        images["shards"], images["tables"] = len(found.shards), 0 if found.shards else len(found.tables)
    kind = max(images, key=lambda kind: images[kind])
    left_out = dict(found.left_out)
    if not images[kind]:
        beside = f" but {enumerated(left_out)}" if left_out else ""
        raise ConfigError(
            f"there are no images in {where}{beside}: put .jpg, .png, .webp or .tif files there"
        )
    files: list[list[Any]] = [found.pictures, found.shards, found.tables or [path / "state.json"]]
    for other, some in zip(images, files, strict=True):
        if other != kind and images[other]:
            why = f"{other} hold {images[other]}, {kind} {images[kind]} images here: move one of both away"
            left_out[why] = [os.path.relpath(path / file, path) for file in some]
    say_left_out(left_out, where)
    if kind == "shards":
        return Source(*shards.open_shards(found.shards, where, cache), where)
    if kind == "tables":
        return Source(*hf_datasets.open_dataset(f"{hf_datasets.PREFIX}{path}", 0, cache), where)
    return _files(found.pictures, path, where)


def _list(parameter: str, where: str, path: Path, data_root: str) -> Source:
    choices = f"type {parameter}=toy-roads, an image folder, or a .txt file of image paths"
    if not path.is_file():
        raise ConfigError(f"there is no {where}: {choices}")
    if path.suffix.lower() != ".txt":
        raise ConfigError(f"{where} is a single file: {choices}")
    root = Path(native(data_root)).expanduser() if data_root else path.parent
    if not root.is_dir():
        raise ConfigError(f"there is no folder {data_root}: type data_root=FOLDER")
    names, left_out = listed(path, root)
    if not names:
        raise ConfigError(f"{where} lists no images: write one image path a line")
    say_left_out(left_out, where)
    return _files(names, root, where)


def _files(names: list[str], root: Path, where: str) -> Source:
    def read(name: str) -> tuple[Picture, str]:
        return read_image(root / name)

    return Source(names, read, lambda name: _stamp(root / name), places(root), where)


def native(path: str) -> str:
    """A path as this process has it, where the locale cannot write it: UTF-8, as most disks have it."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return os.fsdecode(path.encode())
    return path


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return "missing"
    return (
        f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"  # ctime: a mended permission
    )


def _filtered(source: Source, config: DataConfig) -> Source:
    """Keep the images whose weather, time of day and scene the config names."""
    wanted = {key: getattr(config, key) for key in ATTRIBUTES if getattr(config, key)}
    if config.bdd_labels and not source.labels:
        source = _with_bdd_labels(source, config.bdd_labels)
    if not wanted:
        return source
    if source.labels is None:
        raise ConfigError(
            f"{next(iter(wanted))} needs labels: type bdd_labels=PATH of BDD100K's label file or folder"
        )
    for key, values in wanted.items():
        known = {labels.get(key, "") for labels in source.labels} - {""}
        for value in values:
            if value not in known:
                choice = f"type one of {', '.join(sorted(known))}" if known else f"leave {key} out"
                raise ConfigError(f"{key}={value} is in no label of {source.where}: {choice}")
    keep = [i for i, labels in enumerate(source.labels) if all(labels.get(k) in v for k, v in wanted.items())]
    if not keep:
        asked = " and ".join(f"{key}={','.join(values)}" for key, values in wanted.items())
        raise ConfigError(f"no image of {source.where} has {asked}: ask for fewer attributes at once")
    return source.take(keep)


def _with_bdd_labels(source: Source, labels_path: str) -> Source:
    """The images that BDD100K's labels speak of."""
    path = Path(labels_path).expanduser()
    if not path.is_file() and not path.is_dir():
        raise ConfigError(
            f"there is no {labels_path}: type bdd_labels=PATH of BDD100K's label file or folder"
        )
    labels = {}
    inside = (file for file in sorted(path.rglob("*.json")) if file.is_file())
    for file in inside if path.is_dir() else [path]:
        try:
            for entry in _bdd_entries(json.loads(file.read_text(encoding="utf-8-sig"))):
                stem, attributes = Path(entry.get("name", file)).stem, entry["attributes"]
                labels[stem] = {key: str(attributes.get(key) or "") for key in ATTRIBUTES}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            why = f"{file} is not in BDD100K's format"
            raise ConfigError(f"{why}: each entry needs a name and attributes") from None
    keep = [i for i, name in enumerate(source.names) if Path(name).stem in labels]
    without = len(source.names) - len(keep)
    if not keep:
        why = f"{labels_path} has no label for any image of {source.where}"
        raise ConfigError(f"{why}: check that the names match")
    if without:
        say(f"left out: {without} of {len(source.names)} images of {source.where} have no label")
    source = source.take(keep)
    return source._replace(labels=[labels[Path(name).stem] for name in source.names])


def _bdd_entries(content: Any) -> list[dict[str, Any]]:
    """BDD100K's layouts: a list of images, that list under `frames`, or one image with its own `frames`."""
    if isinstance(content, list):
        return content
    return [content] if "attributes" in content else content["frames"]
