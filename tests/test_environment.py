"""Where a result came from."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workbench import ENV, REPO

ASK = "from tok1d.system.environment import git_commit; print(git_commit())"


def git(folder: Path, *words: str) -> str:
    me = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *me, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit_all(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    return git(folder, "rev-parse", "HEAD")


def recorded(project: Path, **env: str) -> str:
    env = ENV | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"} | env
    done = subprocess.run([sys.executable, "-c", ASK], env=env, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the code somewhere in a folder."""
    folder = tmp_path / "home" / "project"
    for file in ("__init__.py", "system/__init__.py", "system/environment.py"):
        (folder / "tok1d/system").mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / "tok1d" / file, folder / "tok1d" / file)
    return folder


def test_the_commit_is_that_of_the_code_and_of_no_repository_around_it(project):
    home = project.parent
    assert recorded(project) == "None"
    around = commit_all(home)  # it has the code as any other file
    assert recorded(project) == "None"
    (home / ".gitignore").write_text("project\n")
    git(home, "rm", "-rq", "--cached", "project")
    assert recorded(project) == "None"

    own = commit_all(project)
    assert own != around and recorded(project) == own
    assert recorded(project, GIT_DIR=str(home / ".git")) == own  # as in a hook there
    (project / "more.txt").write_text("")
    assert recorded(project) == f"{own}+changes"


def test_a_repository_beside_the_code_that_does_not_hold_it_is_not_its(project):
    (project / ".gitignore").write_text("tok1d\n")
    commit_all(project)
    assert recorded(project) == "None"
