"""Whatever is killed, before whichever change to its files, ends in a second start as without that."""

import json
import subprocess
import sys

import pytest
from workbench import ENV, REPO


def killed(folder, count: int, works: tuple[str, ...]) -> list[dict]:
    words = [sys.executable, str(REPO / "tests/support/killing.py"), str(folder), str(count), *works]
    path = {"PYTHONPATH": f"{REPO}:{REPO / 'tests/support'}"}
    result = subprocess.run(words, cwd=REPO, env=ENV | path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


QUICK = ("train", "evaluate", "reconstruct", "report", "publish", "results")
ALL = (*QUICK, "sweep")


@pytest.mark.parametrize("count, works", [(2, QUICK), pytest.param(0, ALL, marks=pytest.mark.slow)])
def test_after_one_restart_all_files_are_as_without_the_kill(tmp_path, count, works):
    """A kernel that trains and measures, evaluation on two sets of images, reconstruction, report,
    publishing, a sweep's driver after its last run and before it: two changes of each, or all of them.
    """
    found = killed(tmp_path, count, works)
    assert {each["work"] for each in found} == set(works)
    assert len(found) == 2 * len(works) or (count == 0 and len(found) > 250)
    assert [each for each in found if each["wrong"]] == []
