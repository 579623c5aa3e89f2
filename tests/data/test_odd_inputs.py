"""Small inputs that real users of similar tools reported: images found, left out and why, by hand count."""

import subprocess
import sys
from pathlib import Path

import pytest
from workbench import CI, REPO

from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data
from tok1d.data.left_out import say

TOOL = REPO.parent / "shared/tools/odd_inputs.py"
TABLE = {  # input -> images for training, for validation; what is said; how many cannot be read
    "shards_and_preview": (38, 2, "1 file (pictures hold 1, shards 40 images here", 0),
    "dots.tar": (29, 1, "", 0),
    "pictures_and_parquet": (18, 2, "", 0),
    "suffixes": (23, 1, "", 0),
    "odd_exif": (38, 2, "", 0),
    "updated.tar": (9, 1, "1 file (replaced by a later file of the same name; updated.tar/0.png)", 0),
    "hidden.tar": (9, 1, "1 file (hidden; hidden.tar/.ipynb_checkpoints/000-checkpoint.jpg)", 0),
    "list/twice.txt": (19, 1, "20 files (the same file under another name; such as ./imgs/000.jpg)", 0),
    "one_bad": (8, 1, "1 of 9 images", 1),
    "classes": (9, 3, "", 0),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    if not TOOL.exists() and not CI:
        pytest.skip(
            "the tool that makes odd inputs is not beside the repository: ../shared/tools/odd_inputs.py"
        )
    folder = tmp_path_factory.mktemp("odd")
    subprocess.run([sys.executable, str(TOOL), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("name", list(TABLE))
def test_images_found_and_left_out_are_those_of_a_hand_count(odd, name, tmp_path, capsys):
    say.cache_clear()
    most = 0.2 if name == "one_bad" else 0.01
    images, val = load_data(DataConfig(data=odd / name, max_unreadable=most), 16, tmp_path)
    train_count, val_count, said, unreadable = TABLE[name]
    assert (len(images), len(val)) == (train_count, val_count)
    left_out = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert len(left_out) == bool(said) and said in "".join(left_out)
    assert len(images.unreadable) + len(val.unreadable) == unreadable
    assert not set(images.names) & set(val.names)


def test_every_input_of_the_tool_is_in_the_table(odd):
    inputs = {path.name for path in odd.iterdir() if not path.name.startswith("without_")}
    assert inputs == {name.split("/")[0] for name in TABLE}


def test_what_was_mended_is_what_is_read(odd, tmp_path):
    updated, _ = load_data(DataConfig(data=odd / "updated.tar"), 16, tmp_path)
    older, _ = load_data(DataConfig(data=odd / "hidden.tar"), 16, tmp_path)
    assert updated.names[0] == "updated.tar/0.png" and (updated[1] == older[1]).all()
    assert not (updated[0] == older[0]).all()
    turned, _ = load_data(DataConfig(data=odd / "odd_exif"), 16, tmp_path)
    assert turned[3].shape == (24, 16, 3) and turned[4].shape == (16, 24, 3)
    _, held = load_data(DataConfig(data=odd / "classes"), 16, tmp_path)
    assert held.names == ["07/003.jpg", "3/003.jpg", "cat/003.jpg"]
