"""How far a loop is: what is said, and how it looks in a real kernel."""

import time

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook
from workbench import REPO

from tok1d.jupyter.live import LiveCurve
from tok1d.system.progress import Progress

WATCHED = """
from IPython.display import display
from tok1d.distributed import Stopped
from tok1d.system.progress import Progress
from tok1d.runs import RunError
with Progress("training", 300, done=60) as progress:
    progress.every = 0
    display("a curve")
    for step in range(61, 69):
        progress.update(step)
        print("said")
    raise Stopped(68, 300)
"""


@pytest.fixture
def moment(monkeypatch):
    """A clock that is set by hand: `moment(3.5)`."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def test_the_slow_first_step_says_nothing_of_the_time_left(moment):
    progress = Progress("training", 300, quiet=True)
    progress.every = 0.5
    said = [progress.text()]
    for step in range(1, 41):  # the first takes two minutes, the others a quarter of a second
        moment(120 + step / 4)
        progress.update(step)
        said.append(progress.text())
    assert all("left" not in text for text in said[:8]) and said[0] == "training: 0 of 300 steps"
    assert said[40] == "training: 40 of 300 steps, 4.0 steps/s, 0:01:05 left"
    moment(1000)
    progress.update(300)
    assert progress.text() == "training: 300 of 300 steps"


def test_without_a_kernel_it_is_seldom_and_on_stderr(moment, capsys):
    with Progress("reading", 0, unit="images") as progress:
        for done in range(1, 100):
            moment(done)
            progress.update(done)
    out, err = capsys.readouterr()
    texts = [text.strip() for text in err.split("\r")[1:]]
    assert not out and texts == [
        "reading: 30 images",
        "reading: 60 images",
        "reading: 90 images",
        "reading: 99 images",
    ]


def test_in_a_kernel_it_is_one_display_and_stopping_one_line(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    for name in ("TOK1D_HEADLESS", "PAPERMILL_OUTPUT_PATH"):
        monkeypatch.delenv(name, raising=False)
    notebook = new_notebook(cells=[new_code_cell(WATCHED), new_code_cell("raise RunError('type this')")])
    client = NotebookClient(notebook, kernel_name="python3", allow_errors=True, timeout=120)
    client.execute()
    stopped, refused = (cell.outputs for cell in notebook.cells)
    kinds = [each.output_type for each in stopped if each.output_type != "stream"]
    assert kinds == ["display_data", "display_data", "error"]
    assert "training: 68 of 300 steps, stopped" in stopped[0].data["text/html"]
    assert {each.name for each in stopped if each.output_type == "stream"} == {"stdout"}
    assert stopped[-1].traceback == ["stopped at step 68 of 300; Run All continues from there"]
    assert refused[0].traceback == ["RunError: type this"]
    strict = new_notebook(cells=[new_code_cell(WATCHED)])  # whoever executes it still hears of it
    with pytest.raises(CellExecutionError, match="stopped at step 68 of 300"):
        NotebookClient(nbformat.from_dict(strict), kernel_name="python3", timeout=120).execute()


def test_a_curve_remembers_the_steps_before_and_draws_repeated_ones_once():
    before = [{"step": step, "loss": 1 / step, "psnr": 20.0} for step in range(1, 9)]
    curve = LiveCurve(records=before)
    for step in range(6, 11):  # from the checkpoint of step 5
        curve.update({"step": step, "loss": 2.0})
    assert curve.points["loss"] == [(step, 1 / step) for step in range(1, 6)] + [
        (s, 2.0) for s in range(6, 11)
    ]
    assert [step for step, _ in curve.points["psnr"]] == [1, 2, 3, 4, 5]
