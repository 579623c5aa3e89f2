"""What the README says works."""

import re

import torch
import typer
from workbench import REPO

from tok1d.cli import app
from tok1d.data.toy_roads.draw import draw_scene
from tok1d.generation.generator import load_tokenizer
from tok1d.generation.prior import Prior, PriorShape
from tok1d.generation.token_dataset import ids_sha256

README = (REPO / "README.md").read_text()


def test_the_python_examples_run(monkeypatch, tmp_path):
    """The prior is one that has learned nothing."""
    monkeypatch.chdir(REPO)
    shipped = "outputs/published/toy-roads-64px"
    attributes = {"timeofday": ("daytime", "night"), "weather": ("clear", "rainy")}
    shape = PriorShape(
        num_tokens=4, levels=(8, 8, 8, 5, 5, 5), attributes=attributes, width=32, depth=1, heads=1,
        tokenizer=shipped, ids_sha256=ids_sha256(load_tokenizer(shipped)),
    )  # fmt: skip
    Prior.build(shape).save_pretrained(tmp_path / "model")
    (tmp_path / "params.yaml").write_text("tokenizer: x\nprior_tokens: 4\n")
    draw_scene(0).save(tmp_path / "photo.jpg")
    names, shapes = {"images": torch.rand(2, 3, 64, 64)}, []
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        block = block.replace("outputs/priors/quickstart", str(tmp_path))
        exec(block.replace("photo.jpg", str(tmp_path / "photo.jpg")), names)
        shapes.append((tuple(names["ids"].shape) if "ids" in names else (), tuple(names["images"].shape)))
        names["images"] = torch.rand(2, 3, 64, 64)
    assert shapes == [((), (8, 3, 64, 64)), ((2, 32), (2, 3, 64, 64)), ((2, 32), (1, 3, 64, 64))]


def test_every_command_parses_and_every_path_exists():
    commands = re.findall(r"(?:^|`)tok1d ([^`\n#]+)", README, re.M)
    assert len(commands) >= 5
    known = typer.main.get_command(app).commands
    for command in commands:
        name, *words = command.split()
        known[name].make_context(name, words)  # raises for an unknown option or a missing argument
    for path in re.findall(r"\b((?:notebooks|params|tok1d)/[\w./]+\.\w+)", README):
        assert (REPO / path).exists(), path
