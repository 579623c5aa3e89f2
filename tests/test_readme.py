"""What the README says works."""

import re

import torch
import typer
from workbench import REPO

from tok1d.cli import app
from tok1d.config.schema import TokenizerConfig
from tok1d.models.tokenizer import Tokenizer

README = (REPO / "README.md").read_text()


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TokenizerConfig(image_size=32, encoder_size="nano", decoder_size="nano", elastic=True)
    Tokenizer(config).save_pretrained("outputs/runs/quickstart/model")
    names = {"images": torch.rand(2, 3, 32, 32)}
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block, names)
    assert names["ids"].shape == (2, 32) and names["images"].shape == (2, 3, 32, 32)


def test_every_command_parses_and_every_path_exists():
    commands = re.findall(r"(?:^|`)tok1d ([^`\n#]+)", README, re.M)
    assert len(commands) >= 5
    known = typer.main.get_command(app).commands
    for command in commands:
        name, *words = command.split()
        known[name].make_context(name, words)  # raises for an unknown option or a missing argument
    for path in re.findall(r"\b((?:notebooks|params|tok1d)/[\w./]+\.\w+)", README):
        assert (REPO / path).exists(), path
