"""The slider and the report as a reader meets them: a real kernel, a real browser, a real JupyterLab."""

import base64
import io
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from browser import REPO, chromium, differ, jupyter_lab, open_in_lab, pixels, run_all
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tok1d.jupyter.live import LiveCurve
from tok1d.jupyter.report import build_report, formula
from tok1d.jupyter.slider import TokenSlider, strips
from tok1d.jupyter.tables import show_table
from tok1d.system.environment import headless

SETUP = """
import numpy as np
from tok1d.jupyter.live import LiveCurve
from tok1d.system.environment import headless
from tok1d.jupyter.slider import TokenSlider
def flat(*levels):
    return {n: np.full((3, 32, 32, 3), level, np.uint8) for n, level in levels}
print("headless:", headless())
"""
CURVE = """
curve = LiveCurve("smoke", every=0)
for step in range(5):
    curve.update({"step": step, "loss": 1 / (1 + step), "psnr": 10 + step})
curve.close()
"""
SLIDER = (
    "TokenSlider(np.full((3, 32, 32, 3), 200, np.uint8), flat((1, 20), (8, 90), (32, 180)), start={start})"
)
INTRO = r"""# A smoke test
Formula $K \log_2 V$ and a [link](https://example.org/paper).

## Pictures
![here](dot.png)
"""
ELSEWHERE = "![elsewhere](https://example.org/there.png)"
LOADS = """from IPython.display import HTML
HTML('<img src="https://example.org/a.png"><script src="https://example.org/a.js"></script>'
     '<p style="background:url(//example.org/b.png)">x</p><style>@import "//example.org/c.css";</style>')
"""


def _write(path: Path, *cells) -> Path:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=list(cells), metadata={"kernelspec": kernel}), path)
    return path


def _cells() -> list:
    return [
        new_markdown_cell(INTRO),
        new_code_cell(
            "lr: float = 1e-4  # learning rate\nname: str = 'toy'", metadata={"tags": ["parameters"]}
        ),
        new_code_cell(SETUP),
        new_code_cell(CURVE),
        new_code_cell(SLIDER.format(start=8)),
        new_code_cell(SLIDER.format(start=1)),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """smoke.ipynb as written, smoke_run.ipynb as papermill left it, and broken_run.ipynb, which raised."""
    folder = tmp_path_factory.mktemp("notebooks")
    Image.new("RGB", (4, 4), "red").save(folder / "dot.png")
    old = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), old]))
    try:
        smoke = _write(folder / "smoke.ipynb", *_cells())
        elsewhere = [new_markdown_cell(ELSEWHERE), new_code_cell(LOADS)]
        loud = _write(folder / "loud.ipynb", *_cells(), *elsewhere)
        run = folder / "smoke_run.ipynb"
        values = {"name": "bdd", "PAPERMILL_OUTPUT_PATH": str(run)}  # as `papermill --inject-paths` does
        papermill.execute_notebook(loud, run, values, progress_bar=False, kernel_name="python3")
        broken = _write(
            folder / "broken.ipynb", new_code_cell("x = 1"), new_code_cell("1 / 0"), new_code_cell("x")
        )
        with pytest.raises(papermill.PapermillExecutionError):
            papermill.execute_notebook(broken, folder / "broken_run.ipynb", progress_bar=False)
    finally:
        os.environ.pop("PYTHONPATH") if old is None else os.environ.update(PYTHONPATH=old)
    assert smoke.is_file()
    return folder


def images(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


# ------------------------------------------------------------------------------------------ token slider


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((images(2, 8, 8, 3), {}), {}, "is empty"),
        ((images(2, 8, 8, 3), {4: images(3, 8, 8, 3)}), {}, "reconstructions[4] has shape"),
        ((images(2, 8, 8), {4: images(2, 8, 8)}), {}, "originals must be uint8 [M, H, W, 3]"),
        ((images(2, 8, 8, 3) / 1.0, {4: images(2, 8, 8, 3)}), {}, "got float64"),
        ((images(0, 8, 8, 3), {4: images(0, 8, 8, 3)}), {}, "originals must be"),
        (
            (images(2, 8, 8, 3), {4: images(2, 8, 8, 3)}),
            {"captions": {5: "five"}},
            "captions has token counts [5]",
        ),
        ((images(2, 8, 8, 3), {4: images(2, 8, 8, 3)}), {"start": 5}, "start=5 is not one of"),
        (
            (images(2, 8, 8, 3), {4: images(2, 8, 8, 3)}),
            {"others": {"peer": {8: images(2, 8, 8, 3)}}},
            "others['peer'] lacks token counts [4]",
        ),
    ],
)
def test_slider_says_in_one_sentence_what_is_wrong(arguments, options, says):
    with pytest.raises(ValueError) as caught:
        TokenSlider(*arguments, **options)
    message = str(caught.value)
    assert says in message and "\n" not in message and message.endswith(".")


def test_slider_is_html_alone():
    """One frame per count in ascending order, the middle one shown; captions cannot break out of the HTML."""
    slider = TokenSlider(
        images(5, 8, 8, 3), {n: images(5, 8, 8, 3) for n in (64, 1, 16)}, {64: 'best "<b>" & last'}
    )
    assert repr(slider) == "TokenSlider(5 images, tokens 1, 16, 64)"
    assert not hasattr(slider, "_repr_mimebundle_")  # no widget, which would be broken where it is reopened
    page = slider._repr_html_()
    last = "best &quot;&lt;b&gt;&quot; &amp; last"
    assert re.findall(r'aria-label="([^"]*)"( checked)?><span>', page) == [
        ("1 token", ""), ("16 tokens", " checked"), (f"64 tokens: {last}", ""),
    ]  # fmt: skip
    assert re.findall(r"<figcaption hidden>(.*?)</figcaption>", page) == ["1 token", "16 tokens", last]
    assert page.count("<img ") == 3 * 5 and page.count("<details") == 3 and page.count(" open>") == 1
    assert not re.search(r"http|<script|\bid=|\bon[a-z]+=", page) and page != slider.to_html()


def test_slider_takes_tensors_of_many_images():
    torch = pytest.importorskip("torch")
    ten = torch.zeros(10, 64, 64, 3, dtype=torch.uint8)
    assert TokenSlider(ten, {2: ten}).num_images == 10
    made = strips([ten.numpy(), ten.numpy()])
    assert [strip.size for strip in made] == [(128, 2 * 132 - 4)] * 10
    assert strips([images(1, 512, 1024, 3)])[0].width == 256


def test_slider_shows_another_code_in_a_row_of_its_own():
    one, gray = images(1, 128, 128, 3), images(1, 128, 128, 3) + 90
    slider = TokenSlider(one, {4: one}, others={"linear code": {4: gray}}, quality=100)
    ((frame,),) = slider.frames
    shown = np.array(Image.open(io.BytesIO(frame)).convert("RGB"))
    assert shown.shape == (3 * 132 - 4, 128, 3)
    assert (np.abs(shown[-128:].astype(int) - 90) < 4).all() and (shown[132:260] < 4).all()


def test_a_single_count_has_no_slider():
    page = TokenSlider(images(1, 8, 8, 3), {4: images(1, 8, 8, 3)}).to_html()
    assert "<input" not in page and "<figcaption>4 tokens</figcaption>" in page and "<img " in page


STRIPPED = {  # what is left where it is shown, and how many frames are seen
    "as made": (lambda page: page, 1),
    "no style sheet": (lambda page: re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL), 1),
    "no style at all": (
        lambda page: re.sub(r'<style>.*?</style>| style="[^"]*"|<input[^>]*>', "", page, flags=re.DOTALL), 1
    ),
}  # fmt: skip


@pytest.mark.parametrize("sanitized, seen", STRIPPED.values(), ids=STRIPPED)
def test_one_frame_is_shown_whatever_a_sanitizer_takes_out(sanitized, seen, tmp_path):
    counts = {n: images(2, 32, 32, 3) for n in (1, 4, 16)}
    page = sanitized(TokenSlider(images(2, 32, 32, 3), counts).to_html())
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{page}")
    with chromium(width=700) as browser:
        browser.page.goto((tmp_path / "page.html").as_uri())
        assert browser.page.locator("img:visible").count() == 2 * seen
        assert min(browser.page.locator("img:visible").first.bounding_box().values()) >= 0
        if "<style>" not in page:  # each folds by itself
            browser.page.locator("summary", has_text="16 tokens").click()
            assert browser.page.locator("img[alt*='16 tokens']:visible").count() == 2


@pytest.mark.parametrize("width", [390, 700])
def test_pictures_of_the_slider_are_of_useful_size(width, tmp_path):
    counts = {n: images(6, 64, 64, 3) for n in (1, 64)}
    page = TokenSlider(images(6, 64, 64, 3), counts, others={"a linear code": counts}).to_html()
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><meta name=viewport content='width={width}'>{page}")
    with chromium(width=width) as browser:
        browser.page.goto((tmp_path / "page.html").as_uri())
        boxes = [image.bounding_box() for image in browser.page.locator("img:visible").all()]
        assert len(boxes) == 6 and min(box["width"] for box in boxes) >= 100
        assert browser.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# ------------------------------------------------------------------------------------------ live curve


def test_headless_without_kernel_and_by_environment(monkeypatch):
    monkeypatch.delenv("TOK1D_HEADLESS", raising=False)
    assert headless()  # pytest is no Jupyter kernel
    monkeypatch.setenv("TOK1D_HEADLESS", "0")
    assert not headless()
    monkeypatch.setenv("TOK1D_HEADLESS", "1")
    assert headless()


def test_curve_outside_ipython_only_collects(capsys):
    curve = LiveCurve("smoke", every=0)
    for step in range(100):
        curve.update({"step": step, "loss": 0.5**step, "psnr": None if step % 10 else 20.0})
    curve.update({"step": 100, "loss": float("nan")})
    curve.close()
    assert capsys.readouterr() == ("", "")
    assert len(curve.points["loss"]) == 100 and len(curve.points["psnr"]) == 10
    left, right = curve.figure().axes
    assert left.get_yscale() == "log" and right.get_ylabel() == "PSNR (dB)"


def test_curve_in_a_papermill_run_is_one_picture(folder):
    cells = nbformat.read(folder / "smoke_run.ipynb", as_version=4).cells
    assert "headless: True" in next(c for c in cells if "headless()" in c.source).outputs[0].text
    outputs = next(c for c in cells if c.source.startswith("\ncurve")).outputs
    assert [list(output.data) for output in outputs] == [["image/png", "text/plain"]]


# ------------------------------------------------------------------------------------------ report


def test_report_says_in_one_sentence_what_is_wrong(folder, tmp_path):
    (tmp_path / "garbled.ipynb").write_text("{")
    for notebooks, says in (
        ([], "No notebook to report"),
        (
            [tmp_path / "gone.ipynb"],
            "gone.ipynb does not exist: run it with `tok1d run notebooks/gone.ipynb`",
        ),
        (
            [folder / "smoke.ipynb"],
            "smoke.ipynb was never run: run it with `tok1d run notebooks/smoke.ipynb`",
        ),
        ([tmp_path / "garbled.ipynb"], "garbled.ipynb is not a readable notebook"),
    ):
        with pytest.raises(ValueError) as caught:
            build_report(notebooks, tmp_path / "report.html")
        assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_report_shows_parameters_pictures_and_failures(folder, tmp_path):
    out = build_report(
        [folder / "smoke_run.ipynb", folder / "broken_run.ipynb"], tmp_path / "new" / "report.html"
    )
    assert [file.name for file in out.parent.iterdir()] == ["report.html"]  # no temporary file stays
    page = out.read_text()
    assert '<li title="learning rate"><span>lr</span> <code>1e-4</code></li>' in page
    assert '<li class="changed"><span>name</span> <code>&#34;bdd&#34;</code></li>' in page
    assert "PAPERMILL_" not in page and "widget-state" not in page
    assert 'src="data:image/png;base64,' in page and 'class="formula"' in page
    assert "failed</strong> in code cell 2 of 3: ZeroDivisionError: division by zero" in page
    assert re.search(r'id="2-broken-run--error"', page) and 'href="#2-broken-run--error"' in page
    assert len(page) < 250_000


def test_report_flags_a_killed_kernel(folder, tmp_path):
    """papermill's metadata calls such a run completed; the cells do not."""
    notebook = nbformat.read(folder / "smoke_run.ipynb", as_version=4)
    notebook.cells[-1].execution_count, notebook.cells[-1].outputs = None, []
    nbformat.write(notebook, tmp_path / "killed.ipynb")
    page = build_report([tmp_path / "killed.ipynb"], tmp_path / "report.html").read_text()
    assert "stopped early</strong> 6 of 7 code cells ran." in page


def test_only_pictures_of_the_notebooks_folder_get_into_the_report(tmp_path):
    inside, outside = tmp_path / "run", tmp_path / "secret.png"
    (inside / "recon").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(outside)
    for name in ("here.png", "recon/with space.png"):
        Image.new("RGB", (4, 4), "blue").save(inside / name)
    (inside / "link.png").symlink_to(outside)
    own = ["here.png", "recon/with%20space.png", str(inside / "here.png")]
    others = ["../secret.png", "recon/../../secret.png", str(outside), f"file://{outside}", "link.png"]
    for name in ("params.yaml", "key", "page.html"):  # no pictures
        (inside / name).write_text("secret")
    nothing = ["", ".", "recon", "gone.png", "%00.png", "x" * 5000, "params.yaml", "key", "page.html"]
    markdown = "\n\n".join(f"![{i}]({source})" for i, source in enumerate([*own, *others, *nothing]))
    shown = new_output(
        "display_data", {"text/html": "".join(f'<img src="{s}">' for s in [*own, *others, *nothing])}
    )
    cells = [new_markdown_cell(markdown), new_code_cell("x", execution_count=1, outputs=[shown])]
    page = build_report([_write(inside / "pictures.ipynb", *cells)], tmp_path / "report.html").read_text()
    embedded = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert embedded == [base64.b64encode((inside / "here.png").read_bytes()).decode()] * 2 * len(own)
    assert page.count("not in this file") == 2 * len(others + nothing)
    assert base64.b64encode(b"secret").decode() not in page


FITS = """() => [...document.querySelectorAll("table")].map(table => {
    const box = table.closest(".table");
    box.scrollLeft = 1e6;
    const last = table.rows[0].cells[table.rows[0].cells.length - 1].getBoundingClientRect();
    return last.right <= innerWidth + 1 && document.documentElement.scrollWidth <= innerWidth;
})"""


def test_no_column_of_a_wide_table_is_lost_on_a_screen_a_phone_or_paper(tmp_path):
    names = [f"number_{i}" for i in range(14)]
    rows = [
        {"run": "a-run-with-a-long-name"}
        | {n: 21.456 for n in names}
        | {"psnr": 1.0, "psnr_interval": [0, 2]}
    ]
    table = new_output("display_data", {"text/markdown": show_table(rows).data})
    path = _write(tmp_path / "wide.ipynb", new_code_cell("x", execution_count=1, outputs=[table]))
    out = build_report([path], tmp_path / "report.html")
    with chromium() as browser:
        browser.page.goto(out.as_uri())
        for width, media in ((1280, "screen"), (390, "screen"), (703, "print")):  # A4 without its margins
            browser.page.set_viewport_size({"width": width, "height": 800})
            browser.page.emulate_media(media=media)
            assert browser.page.evaluate(FITS) == [True], (width, media)
            browser.page.screenshot(path=tmp_path / f"{media}-{width}.png")


def test_formula_mathtext_cannot_draw_stays_text():
    assert formula(r"\frac{a}{b}").startswith("<svg")
    assert formula(r"\nonsense{<a>}") == r"<code>\nonsense{&lt;a&gt;}</code>"


def test_report_is_live_offline_in_a_browser(folder, tmp_path):
    """Arrow keys change the picture of the focused slider, of no other; nothing is asked of another host."""
    out = build_report([folder / "smoke_run.ipynb"], tmp_path / "report.html", title="Smoke")
    with chromium() as browser:
        browser.page.goto(out.as_uri())
        first, second = (browser.page.locator(".tok1d-slider").nth(i) for i in (0, 1))
        shown = "figure:visible"
        before, other = pixels(first.locator(shown)), pixels(second.locator(shown))
        first.locator("input:checked").focus()
        browser.page.keyboard.press("ArrowRight")
        assert differ(before, pixels(first.locator(shown))) > 10
        assert differ(other, pixels(second.locator(shown))) == 0
        assert first.locator("figcaption:visible").inner_text() == "32 tokens"
        assert browser.page.get_by_role("radio", name="32 tokens").first.is_checked()
        browser.page.keyboard.press("ArrowLeft")
        assert differ(before, pixels(first.locator(shown))) < 1
        second.get_by_text("32", exact=True).click()
        assert second.locator("figcaption:visible").inner_text() == "32 tokens"
        assert differ(before, pixels(first.locator(shown))) < 1

        assert not browser.page.locator(".highlight").first.is_visible()
        browser.page.get_by_label("show code").check()
        assert browser.page.locator(".highlight").first.is_visible()
        assert browser.page.title() == "Smoke" and browser.outside == []


# ------------------------------------------------------------------------------------------ JupyterLab


def test_slider_is_live_in_jupyterlab(folder):
    """In the real front end arrow keys move it, and it is no widget that a reopened notebook lacks."""
    with jupyter_lab(folder) as lab, chromium() as browser:
        open_in_lab(browser.page, lab, "smoke.ipynb")
        run_all(browser.page)
        assert browser.page.get_by_text("headless: False").count() == 1
        sliders = browser.page.locator(".tok1d-slider")
        first, second = sliders.nth(0), sliders.nth(1)
        shown = "figure:visible"
        first.locator(shown).wait_for()
        before, other = pixels(first.locator(shown)), pixels(second.locator(shown))
        first.locator("input:checked").focus()
        browser.page.keyboard.press("ArrowRight")
        assert first.locator("figcaption:visible").inner_text() == "32 tokens"
        assert differ(before, pixels(first.locator(shown))) > 10
        assert differ(other, pixels(second.locator(shown))) < 1
        assert browser.page.locator(".jupyter-widgets").count() == 0 and browser.outside == []


def test_a_notebook_of_someone_else_shows_one_frame_in_jupyterlab(folder, tmp_path):
    """Not trusted, after a restart: the style sheet is taken out; nothing is broken, and frames unfold."""
    notebook = nbformat.read(folder / "smoke_run.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "start=8" in cell.source]
    nbformat.write(notebook, tmp_path / "theirs.ipynb")
    with jupyter_lab(tmp_path) as lab, chromium() as browser:
        open_in_lab(browser.page, lab, "theirs.ipynb")
        slider = browser.page.locator(".tok1d-slider")
        slider.wait_for()
        assert slider.locator("style").count() == 0  # or this tests nothing
        assert slider.locator("img:visible").count() == 3 and not slider.locator("input:visible").count()
        slider.get_by_text("32 tokens", exact=True).first.click()
        assert slider.locator("img[alt*='32 tokens']:visible").count() == 3
        assert browser.page.locator(".jp-mod-error, .jp-RenderedText[data-mime-type*=stderr]").count() == 0
