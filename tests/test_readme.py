"""What the README says works."""

import re

import torch
import typer
from workbench import REPO

from tok1d.cli import app

README = (REPO / "README.md").read_text()


def test_the_python_example_runs(monkeypatch):
    monkeypatch.chdir(REPO)
    names = {"images": torch.rand(2, 3, 64, 64)}
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block, names)
    assert names["ids"].shape == (2, 32) and names["images"].shape == (2, 3, 64, 64)


def test_every_command_parses_and_every_path_exists():
    commands = re.findall(r"(?:^|`)tok1d ([^`\n#]+)", README, re.M)
    assert len(commands) >= 5
    known = typer.main.get_command(app).commands
    for command in commands:
        name, *words = command.split()
        known[name].make_context(name, words)  # raises for an unknown option or a missing argument
    for path in re.findall(r"\b((?:notebooks|params|tok1d)/[\w./]+\.\w+)", README):
        assert (REPO / path).exists(), path
