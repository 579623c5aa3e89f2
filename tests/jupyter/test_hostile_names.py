"""Names of images, folders, runs and parameters are other people's: they are read, and do nothing."""

import html
import json

import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import chromium
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tok1d.config.schema import TokenizerConfig
from tok1d.jupyter.report import build_report
from tok1d.jupyter.slider import TokenSlider
from tok1d.jupyter.tables import key_values, markdown_text, print_table, show_table
from tok1d.models.tokenizer import Tokenizer
from tok1d.sweeps.publish import BEGIN, END, renew

HOSTILE = [
    "<svg onload=hit()>", "<img src=x onerror=hit()>", "<script>hit()</script>", "<b>bold</b>", "</td></tr>",
    "[l](javascript:hit())", "![i](x.png)", "[a]: javascript:hit()", "<javascript:hit()>", "`code`", "a|b|c",
    "**strong**", "_under_", "__init__.py", "*.jpg", "~~gone~~", "$x^2$", "$$y$$", r"\(z\)", r"back\slash\|",
    "&lt;svg onload=hit()&gt;", "&amp;", "<!-- comment", "--> -->", "# heading", "- item", "1. first",
    "> said", "<style>*{display:none}</style>", "'\"><svg/onload=hit()>", "{{7*7}}{% raw %}",
    "<iframe srcdoc='x'>",
    "<a href=javascript:hit()>", "]]>", "https://a.example/?q=<svg onload=hit()>", f"tail {END}", "ünï→名前",
]  # fmt: skip
ACTIVE = [
    "<svg onload=hit()></svg>", "<img src=x onerror=hit()>", "<script>hit()</script>",
    "<iframe srcdoc='<script>parent.hit()</script>'></iframe>", "<body onload=hit()>",
    "<details open ontoggle=hit()>",
    "<a class=go href='java\tscript:hit()'>go</a>", "<a class=go href=' JAVASCRIPT:hit()'>go</a>",
    "<a class=go href='data:text/html,<script>hit()</script>'>go</a>", "<input autofocus onfocus=hit()>",
    "<form action='javascript:hit()'><button class=go>go</button></form>",
    "<video><source onerror=hit()></video>",
    "<button class=go formaction='javascript:hit()'>go</button>", "<object data='javascript:hit()'></object>",
    "<svg><a class=go xlink:href='javascript:hit()'><text y=20>go</text></a></svg>",
    "<meta http-equiv=refresh content='0;url=x'>",
    "<math><mtext><a class=go href='vbscript:hit()'>go</a></mtext></math>", "<style onload=hit()></style>",
]  # fmt: skip
HIT = "window.hit = () => { window.wasHit = true }"


def cell(**data: str):
    data = {f"text/{kind}": text for kind, text in data.items()}
    return new_code_cell("x", execution_count=1, outputs=[new_output("display_data", data)])


def report(folder, *cells, name="hostile", **metadata):
    notebook = new_notebook(cells=list(cells), metadata=metadata)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return build_report([folder / f"{name}.ipynb"], folder / "report.html", title=f"tok1d · {HOSTILE[0]}")


def readable(page, text: str) -> bool:
    return " ".join(text.split()) in " ".join(page.split())


def opened(page, path) -> list[str]:
    """A report in the browser, where anything that runs is told; what its console says from then on."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.add_init_script(HIT)
    page.goto(path.as_uri())
    return said


def test_every_name_is_readable_in_the_report_and_none_runs(tmp_path):
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    captions = {i + 1: name for i, name in enumerate(HOSTILE)}
    same = dict.fromkeys(captions, pixels)
    slider = TokenSlider(pixels, same, captions, others={HOSTILE[0]: same})
    values = "\n".join(f"p{i} = {name!r}" for i, name in enumerate(HOSTILE))
    parameters = new_code_cell(f"# Parameters\n{values}", metadata={"tags": ["parameters"]})
    path = report(
        tmp_path,
        new_markdown_cell(f"# {markdown_text(HOSTILE[1])}"),
        parameters,
        cell(markdown=show_table({"name": f"row {n}", "psnr": 1.0, n: n} for n in HOSTILE).data),
        cell(markdown=key_values({f"key {n}": {n: f"value {n}"} for n in HOSTILE}).data),
        cell(html=slider.to_html()),
        name="<svg onload=hit()> & [l](javascript:hit())",
    )
    with chromium() as browser:
        page = browser.page
        said = opened(page, path)
        rows = page.locator(".output_markdown table").nth(0).locator("tbody tr")
        assert rows.count() == len(HOSTILE)
        for i, name in enumerate(HOSTILE):
            row = rows.nth(i).locator("td")
            assert row.count() == 2 + len(HOSTILE)  # nothing broke the table
            assert readable(row.nth(0).inner_text(), f"row {name}"), name
            assert readable(row.nth(2 + i).inner_text(), name), name
        text = page.locator("body").inner_text()
        for name in HOSTILE:
            assert readable(text, f"value {name}") and readable(text, f"key {name}.{name}"), name
        shown = page.locator(".parameters code").all_inner_texts()
        assert shown == [repr(name) for name in HOSTILE]
        assert page.locator("figcaption").all_text_contents() == HOSTILE
        assert page.title() == f"tok1d · {HOSTILE[0]}" and page.locator("h1").inner_text() == HOSTILE[1]
        assert page.evaluate("document.querySelectorAll('script, iframe, a[href^=javascript]').length") == 0
        assert not page.evaluate("window.wasHit") and said == [] and browser.outside == []


def test_what_a_notebook_brings_along_does_not_run_either(tmp_path):
    links = new_markdown_cell("[l](javascript:hit()) [m](<java\tscript:hit()>) <svg onload=hit()></svg>")
    path = report(tmp_path, links, *(cell(html=text) for text in ACTIVE))
    with chromium() as browser:
        page = browser.page
        said = opened(page, path)
        for link in page.locator(".go").all():
            link.click(force=True, no_wait_after=True)
        assert page.evaluate("location.href").split("#")[0].rstrip("?") == path.as_uri()
        assert not page.evaluate("window.wasHit")
        assert not [text for text in said if "script" in text.lower()]  # nothing was even refused


def test_the_switch_shows_all_code_without_script(tmp_path):
    path = report(tmp_path, cell(plain="1"), cell(plain="2"))
    with chromium() as browser:
        browser.page.goto(path.as_uri())
        code = browser.page.locator(".highlight")
        assert code.count() == 2 and not code.first.is_visible()
        browser.page.locator("summary").nth(1).click()
        assert code.nth(1).is_visible() and not code.first.is_visible()
        browser.page.get_by_label("show code").check()
        assert code.first.is_visible() and code.nth(1).is_visible()


def test_published_titles_series_and_folders_are_readable_and_do_not_run(tmp_path):
    """Here in a page without any policy, as another reader of Markdown may make one."""
    for i, name in enumerate(HOSTILE):
        folder = tmp_path / "published" / f"{i:02} {name.replace('/', '⁄')}"
        folder.mkdir(parents=True)
        rows = [{"run": "r", "series": name, "num_tokens": 1, "psnr": 20.0, "card": "c"}]
        pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
        about = {"title": f"title {name}", "card": {"images": 2, "image_size": 16}}
        (folder / "about.json").write_text(json.dumps(about))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\n{END}\n\nafter\n")
    for _ in range(2):
        renew(readme, tmp_path / "published")
    text = readme.read_text()
    assert text.count(BEGIN) == text.count(END) == 1 and text.endswith(f"{END}\n\nafter\n")
    head = f"<meta charset=utf-8><script>{HIT}</script>"
    (tmp_path / "readme.html").write_text(head + markdown2html_mistune(text))
    with chromium() as browser:
        browser.page.goto((tmp_path / "readme.html").as_uri())
        text = browser.page.locator("body").inner_text()
        for i, name in enumerate(HOSTILE):
            assert readable(text, f"title {name}") and readable(text, f"{i:02} {name.replace('/', '⁄')}"), (
                name
            )
        assert browser.page.locator("td:first-child").all_inner_texts() == HOSTILE
        assert not browser.page.evaluate("window.wasHit")


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\u202eb", "a\x00b", "a\udcffb", "a\u2028b"])
def test_no_name_steers_a_terminal_or_turns_text_around(name, capsys):
    print_table([{"name": name, name: 1}])
    said = capsys.readouterr().out
    assert said.count("a�") == 2 and not set(name[1:-1]) & set("\x1b\u202e\x00\udcff\u2028") & set(said)
    show_table([{"name": name}]).data.encode()
    assert "a�" in markdown_text(name)


def test_a_model_card_has_no_name_of_anything(tmp_path):
    folder = tmp_path / "<svg onload=hit()>"
    small = dict(image_size=16, patch_size=8, num_latent_tokens=4)
    Tokenizer(TokenizerConfig(**small)).save_pretrained(folder)
    assert "svg" not in html.unescape((folder / "README.md").read_text())
