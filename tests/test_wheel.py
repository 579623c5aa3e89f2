"""The wheel holds the whole package: every module is imported from it, outside of the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from workbench import REPO

IMPORT_ALL = """
import importlib, pathlib, pkgutil, tok1d
assert pathlib.Path(tok1d.__file__).is_relative_to({where!r}), tok1d.__file__
names = [module.name for module in pkgutil.walk_packages(tok1d.__path__, "tok1d.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel puts into an environment."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(REPO / "tok1d", folder / "source/tok1d", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel", "--no-deps"]
    subprocess.run([*pip, "-w", folder, folder / "source"], check=True, capture_output=True)
    (wheel,) = folder.glob("tok1d-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, *arguments: str) -> str:
    env = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=installed.parent, env=env, check=True, capture_output=True, text=True
    ).stdout


def test_every_module_is_in_it(installed):
    modules = {path.relative_to(REPO) for path in (REPO / "tok1d").rglob("*.py")}
    assert {path.relative_to(installed) for path in (installed / "tok1d").rglob("*.py")} == modules
    found = run(installed, "-c", IMPORT_ALL.format(where=str(installed)))
    assert int(found) == len(modules) - 1  # all but tok1d itself


def test_its_files_and_commands_are_there(installed):
    for data in ("jupyter/report_template/page.html.j2", "figures/published.yaml"):
        assert (installed / "tok1d" / data).exists()
    assert "sweep" in run(installed, "-m", "tok1d.cli", "--help")
    assert "num_latent_tokens: 64" in run(installed, "-m", "tok1d.cli", "params", "train")
