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


CHANGES = {  # at least so many of each
    "train": 120, "generate": 100, "evaluate": 40, "reconstruct": 10, "report": 3, "publish": 15,
    "results": 25, "sweep": 40,
}  # fmt: skip
QUICK = tuple(work for work in CHANGES if work != "sweep")


def test_after_one_restart_all_files_are_as_without_the_kill(tmp_path):
    """Kernels that train and measure a tokenizer and a prior, evaluation on two sets of images,
    reconstruction, report, publishing, a sweep's driver after its last run: two changes of each.
    """
    found = killed(tmp_path, 2, QUICK)
    assert [each["work"] for each in found] == [work for work in QUICK for _ in range(2)]
    assert [each for each in found if each["wrong"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("work", CHANGES)
def test_before_each_change(tmp_path, work):
    """All changes, and those of a sweep's driver before its last run has ended, too."""
    found = killed(tmp_path, 0, (work,))
    assert len(found) >= CHANGES[work]
    assert [each for each in found if each["wrong"]] == []
