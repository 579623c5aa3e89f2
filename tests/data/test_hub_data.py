"""Hugging Face data sets: from the hub (a small one, served here), and from a disk."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hub import serve
from loading import load, sentence
from PIL import Image

from tok1d.config.fields import ConfigError
from tok1d.data.hf_datasets import parse_name

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()


def picture(i: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8))


def table(count: int, start: int = 0, **columns) -> "datasets.Dataset":
    rows = {"label": list(range(count)), "photo": [picture(start + i) for i in range(count)]}
    features = {"label": datasets.Value("int64"), "photo": datasets.Image()}
    for name in columns:
        rows[name], features[name] = rows["photo"], datasets.Image()
    return datasets.Dataset.from_dict(rows, datasets.Features(features))


@pytest.fixture
def plain(tmp_path):
    """The same ten pictures as files."""
    (tmp_path / "plain").mkdir()
    for i in range(10):
        picture(i).save(tmp_path / f"plain/{i}.png")
    return load(tmp_path / "plain", tmp_path)


@pytest.mark.parametrize("kind", ["saved", "saved with splits", "parquet", "parquet with splits"])
def test_data_sets_on_a_disk(tmp_path, plain, kind):
    where, splits = tmp_path / "set", {"train": table(10), "test": table(3, start=20)}
    if kind == "saved":
        splits["train"].save_to_disk(where)
    elif kind == "saved with splits":
        datasets.DatasetDict(splits).save_to_disk(where)
    elif kind == "parquet":
        where.mkdir()
        splits["train"].to_parquet(where / "some.parquet")
    else:
        (where / "data").mkdir(parents=True)
        for name, split in splits.items():
            split.to_parquet(where / f"data/{name}-00000-of-00001.parquet")
    for named in (where, f"hf:{where}", f"hf:{where}:train:photo"):
        images = load(named, tmp_path)
        assert (images.pixels == plain.pixels).all() and len(images) == 10
    streamed = load(where, tmp_path, decode="stream", max_images=10)
    assert torch.equal(streamed.train_batch(1, 4, seed=0), plain.train_batch(1, 4, seed=0))
    if "splits" in kind:
        assert len(load(f"hf:{where}:test", tmp_path)) == 3
        assert sentence(f"hf:{where}:val", tmp_path).endswith("has no split val: its splits are train, test")


STREAM = """
import sys
from tok1d.config.fields import ConfigError
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data
for wanted in sys.argv[2:]:
    data, limit = wanted.split()
    config = DataConfig(data=data, max_images=int(limit), val_data="toy-roads", toy_val_images=1)
    try:
        images, _ = load_data(config, 16, sys.argv[1])
        print(len(images), int(images.pixels.sum()), images.names[-1])
    except ConfigError as error:
        print(error)
"""


def streamed(tmp_path, hub: str, *wanted: str) -> list[str]:
    """What a process says of each "DATA LIMIT", whose hub is at that address (which `datasets` asks for when
    it is imported).
    """
    env = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", STREAM, str(tmp_path / "cache"), *wanted]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line]


def test_a_hub_is_streamed_from_once_and_no_further_than_needed(tmp_path, plain):
    files = {}
    for i in range(4):
        raw = io.BytesIO()
        table(8, start=8 * i).to_parquet(raw)
        files[f"train-0000{i}-of-00004.parquet"] = raw.getvalue()
    with serve(files) as (hub, asked):
        wanted = f"5 {sum(int(plain[i].sum()) for i in range(5))} "
        (said,) = streamed(tmp_path, hub, "hf:owner/name 5")
        assert said.startswith(wanted)
        files_asked = {path.rpartition("/")[2][:11] for path in asked if path.endswith(".parquet")}
        assert files_asked <= {"train-00000", "train-00001"}  # the library looks one ahead
        asked.clear()
        assert streamed(tmp_path, hub, "hf:owner/name 5") == [said] and not asked  # nor asked for twice
        no_split, whole = streamed(tmp_path, hub, "hf:owner/name:val 5", "hf:owner/name 0")
        assert "has no split val: its splits are train" in no_split and whole.startswith("32 ")
    (with_none,) = streamed(tmp_path, hub, "hf:owner/other 5")
    assert with_none.startswith("hf:owner/other cannot be opened (") and "type data=FOLDER" in with_none
    assert [path.suffix for path in (tmp_path / "cache/hub").iterdir()] == [".tar", ".tar"]


def test_columns(tmp_path):
    table(4, mask=1).save_to_disk(tmp_path / "two")
    said = sentence(tmp_path / "two", tmp_path)
    assert "needs a column, columns of images are photo, mask: type hf:NAME:SPLIT:COLUMN" in said
    assert len(load(f"hf:{tmp_path / 'two'}::mask", tmp_path)) == 4
    assert "has no column x, columns of images are photo, mask" in sentence(
        f"hf:{tmp_path / 'two'}:train:x", tmp_path
    )


def test_names():
    assert parse_name("hf:owner/name") == ("owner/name", None, None, "train", "")
    assert parse_name("hf:owner/name:test:photo") == ("owner/name", None, None, "test", "photo")
    assert parse_name("hf:o-1/n.2/sub@refs/pr/1:val") == ("o-1/n.2", "sub", "refs/pr/1", "val", "")
    for wrong in ("hf:", "hf:name", "hf:/no/such/folder/there", "hf:owner/name@"):
        with pytest.raises(ConfigError, match="is no data set's name: type hf:owner/name"):
            parse_name(wrong)


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = sentence("hf:owner/name", tmp_path)
    assert said == "hf:owner/name needs the library datasets: type pip install datasets"
