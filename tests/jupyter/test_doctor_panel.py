"""The doctor's panel: what it shows, headless and in a browser."""

import nbformat
import papermill
import pytest
from browser import REPO, chromium
from nbformat.v4 import new_code_cell, new_notebook
from patients import COLLAPSED, PLAYING, records, start_run, write

from tok1d.jupyter.live import DoctorPanel, draw_panel, panel_html
from tok1d.runs import Run
from tok1d.training.doctor import examine


@pytest.fixture
def run(tmp_path) -> Run:
    return start_run(tmp_path)


def test_panel_says_and_shows(run, capsys):
    panel = DoctorPanel(run, every=0)
    for record in records(**COLLAPSED):
        panel.update(record)
        if record["step"] == 150:
            sick = panel.to_html()
    panel.close()
    assert capsys.readouterr() == ("", "")  # no kernel: nothing is shown
    assert "● 1 complaint" in sick and "<b>collapse</b> <span>since step 100</span>" in sick
    assert "● no complaint" in panel.to_html() and "was from step 100, over by now" in panel.to_html()
    assert "http" not in sick and "<script" not in sick


def test_panel_draws_what_there_is():
    plain = draw_panel(records())
    titles = [axis.get_title(loc="left") for axis in plain.axes if axis.get_visible()]
    assert titles == [
        "loss terms",
        "gradient norm",
        "variation over images",
        "codes of a batch",
    ]
    more = draw_panel(records(**PLAYING, loader_wait=0.1))
    assert len([axis for axis in more.axes if axis.get_visible()]) == 6
    sick = records(token_variation=1e-4)
    marked = draw_panel(sick, examine(sick))
    assert [len(axis.patches) for axis in marked.axes[:4]] == [0, 0, 1, 1]
    assert panel_html([], []).count("no complaint") == 1


def test_panel_in_a_papermill_run_is_one_display(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    write(run, records(150, **COLLAPSED))
    code = f"""
from tok1d.jupyter.live import DoctorPanel
from tok1d.runs import Run
run = Run({str(run.path)!r})
panel = DoctorPanel(run, every=0)
for record in run.metrics:
    panel.update(record)
panel.close()
"""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        new_notebook(cells=[new_code_cell(code)], metadata={"kernelspec": kernel}), tmp_path / "in.ipynb"
    )
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False)
    (output,) = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs
    (tmp_path / "panel.html").write_text(output.data["text/html"])
    with chromium() as browser:
        browser.page.goto((tmp_path / "panel.html").as_uri())
        assert browser.page.get_by_text("since step 100").is_visible()
        assert browser.page.locator("img").evaluate("image => image.naturalWidth") > 1000
        assert browser.outside == []
