"""What a message about images says to type is typed here, and helps."""

import ast
import re
from pathlib import Path

import pytest
from workbench import REPO

from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import configs_of
from tok1d.config.parse import given_params, parse_train
from tok1d.config.schema import DataConfig, fields
from tok1d.data.dataset import load_data
from tok1d.data.left_out import say
from tok1d.data.sources import find_sources

ADVICE = re.compile(r"\b(?!https?\b)([a-z][a-z_]+)=([^\s,:)]+)")


def load(tmp_path, *pairs: str):
    """As `tok1d run notebooks/train.ipynb -p NAME=VALUE …` does it."""
    params = parse_train(given_params([], list(pairs)))
    return load_data(params.data, params.tokenizer.image_size, tmp_path / "cache")


def situations(photos, tmp_path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """What is typed, and what stands for the words in capitals of the advice that is then given."""
    good, val = photos(10, "good"), photos(2, "val", start=20)
    for name, count in (("one_bad", 1), ("three_bad", 3), ("all_bad", 10)):
        folder = photos(10, name)
        for file in sorted(folder.iterdir())[:count]:
            file.write_bytes(b"half of an image")
    photos(40, "late_bad")
    (tmp_path / "late_bad/z039.png").write_bytes(b"no image")
    photos(1, "single")
    (tmp_path / "list.txt").write_text("a.png\nb.png\nc.png\n")
    (tmp_path / "list.csv").write_text("a.png\n")
    (tmp_path / "labels.json").write_text('[{"name": "a", "attributes": {"weather": "clear"}}]')
    words = {"PATH": str(good), "FOLDER": str(val)}
    labels = {"PATH": str(tmp_path / "labels.json")}
    roots = {"FOLDER": str(good)}
    listed = f"data={tmp_path / 'list.txt'}"
    return {
        "one bad": ([f"data={tmp_path / 'one_bad'}"], words),
        "three bad": ([f"data={tmp_path / 'three_bad'}"], words),
        "a bad one is held out": ([f"data={tmp_path / 'late_bad'}"], words),
        "one bad, streamed": ([f"data={good}", f"val_data={tmp_path / 'one_bad'}", "decode=stream"], words),
        "all bad": ([f"data={tmp_path / 'all_bad'}"], words),
        "nothing there": ([f"data={tmp_path / 'nosuch'}"], words),
        "no validation": ([f"data={good}", f"val_data={tmp_path / 'nosuch'}"], words),
        "a single image": ([f"data={tmp_path / 'single'}"], words),
        "a table": ([f"data={tmp_path / 'list.csv'}"], words),
        "no root": ([listed, "data_root=nosuch"], roots),
        "no labels": ([f"data={good}", f"val_data={good}", "weather=clear"], labels),
        "no label file": ([f"data={good}", f"val_data={good}", "bdd_labels=nosuch"], labels),
        "toy roads too small": (["image_size=8", "patch_size=8"], words),
        "toy roads too large": (["image_size=2048"], words),
    }


def test_advice_helps_where_it_is_given(photos, tmp_path):
    for name, (typed, words) in situations(photos, tmp_path).items():
        typed, said = ["toy_images=3", "toy_val_images=2", *typed], []
        while len(said) < 3:
            try:
                load(tmp_path, *typed)
                break
            except ConfigError as error:
                parameter, value = ADVICE.findall(str(error))[-1]
                assert str(error) not in said, f"{name}: said again though it was done: {error}"
                said.append(str(error))
            typed = [pair for pair in typed if not pair.startswith(f"{parameter}=")]
            typed.append(f"{parameter}={words.get(value, value)}")
        assert 1 <= len(said) < 3, (name, said)


def test_advice_about_images_in_both_sets_helps(photos, tmp_path, capsys):
    say.cache_clear()
    data = photos(10)
    others = photos(2, "others", start=20)
    load(tmp_path, f"data={data}", f"val_data={data}")
    advice = ADVICE.findall(capsys.readouterr().out)
    assert advice == [("val_data", "FOLDER")]
    load(tmp_path, f"data={data}", f"val_data={others}")
    load(tmp_path, f"data={data}", "hold_out=block")
    assert "training images" not in capsys.readouterr().out


def test_a_list_of_the_good_ones_can_be_given_where_max_unreadable_cannot(photos, tmp_path):
    """`tok1d evaluate --data` has no parameters of data."""
    from tok1d.data.dataset import load_images

    folder = photos(4)
    (folder / "b.png").write_bytes(b"no image")
    config = DataConfig(data=folder, val_data=folder)
    with pytest.raises(ConfigError, match=r"or list the others in a .txt file and give that$"):
        load_images(find_sources(config, 16)[1], 16, tmp_path / "cache")
    (folder / "good.txt").write_text("a.png\nc.png\nd.png\n")
    config = DataConfig(data=folder / "good.txt", val_data=folder / "good.txt")
    assert len(load_images(find_sources(config, 16)[1], 16, tmp_path / "cache")) == 3


def texts(file: Path) -> str:
    """All that a file's code could print."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return "\n".join(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))


@pytest.mark.parametrize("file", sorted((REPO / "tok1d/data").glob("*.py")), ids=lambda file: file.name)
def test_every_name_to_type_is_a_parameter(file):
    names = re.findall(r"\b(?:type|or) (?:a smaller )?([a-z_]+)=", texts(file))
    assert set(names) <= set(fields(*configs_of("train")))
