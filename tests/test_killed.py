"""Whatever is killed, before whichever change to its files, ends in a second start as without that."""

import json
import subprocess
import sys

import pytest
from workbench import ENV, REPO


def killed(folder, count: int) -> list[dict]:
    words = [sys.executable, str(REPO / "tests/support/killing.py"), str(folder), str(count)]
    path = {"PYTHONPATH": f"{REPO}:{REPO / 'tests/support'}"}
    result = subprocess.run(words, cwd=REPO, env=ENV | path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("count", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_after_one_restart_all_files_are_as_without_the_kill(tmp_path, count):
    """Training, evaluation, reconstruction, report, publishing: two changes of each, or all of them."""
    found = killed(tmp_path, count)
    assert {each["work"] for each in found} == {"train", "evaluate", "reconstruct", "report", "publish"}
    assert len(found) == 10 or (count == 0 and len(found) > 150)
    assert [each for each in found if each["wrong"]] == []
