"""Executed notebooks → one static HTML page that works offline, sliders included.

What a browser needs is in the file: pictures as data URIs, formulas as SVG (matplotlib's mathtext), the token
sliders as `TokenSlider.to_html()`. A Content-Security-Policy in the page refuses everything else, so nothing
is ever fetched from another host, and no script runs: the page has none, and what a notebook, or a name in
one, brings along is taken out. The look lives in `report_template/`.
"""

import ast
import html
import logging
import re
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import nbformat
from bs4 import BeautifulSoup
from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import NOTEBOOKS
from tok1d.jupyter.report_html import describe_pictures, disarm, embed, fit_tables
from tok1d.jupyter.report_summary import summary_of
from tok1d.runs import RunError
from tok1d.system.files import replacing

TEMPLATE = Path(__file__).parent / "report_template"


class Parameter(NamedTuple):
    name: str
    value: str  # as written in the notebook
    help: str  # the comment beside it
    changed: bool  # set by the run, not the notebook's default


class Problem(NamedTuple):
    badge: str  # "failed" or "stopped early"
    text: str
    anchor: str  # id of the failing cell's output, or ""


class Section(NamedTuple):
    id: str
    title: str
    details: list[str]  # file, date, duration
    problem: Problem | None
    parameters: list[Parameter]
    headings: list[tuple[str, str]]  # (id, text) of each second-level heading
    slider: str  # the first in it, HTML, or ""
    body: str  # HTML


def executed_notebooks(folder: Path) -> list[Path]:
    """The notebooks of a sweep or run in reading order: run by run, then those of the sweep.

    Raises `RunError` if there is none.
    """
    order = {name: i for i, name in enumerate(NOTEBOOKS)}
    found = [*folder.glob("*/*.ipynb"), *folder.glob("*.ipynb")]
    notebooks = [path for path in found if not path.name.startswith(".")]
    if not notebooks:
        raise RunError(
            f"there is no executed notebook in {folder}: run one with 'tok1d run notebooks/train.ipynb'"
        )
    return sorted(
        notebooks, key=lambda path: (path.parent == folder, path.parent.name, order.get(path.stem, 99))
    )


def build_report(notebooks: list[Path], out: Path, title: str = "tok1d report") -> Path:
    """Write executed `notebooks` as the one file `out` (a temporary file, then a rename); returns its path.

    A notebook with an error, or one that stopped before its last cell, is shown and flagged; one that is
    missing, unreadable or was never run is named and left out. Raises `ConfigError` if none can be shown.
    """
    paths = [Path(notebook) for notebook in notebooks]
    if not paths:
        raise ConfigError("No notebook to report: run one with `tok1d run notebooks/train.ipynb`.")
    exporter, sections, refused = _exporter(), [], []
    for i, path in enumerate(paths, 1):
        id = f"{i}-{re.sub(r'[^A-Za-z0-9]+', '-', path.stem)}"
        try:
            sections.append(_section(exporter, path, _read(path), id))
        except ConfigError as error:
            refused.append(error)
            sections.append(
                Section(id, path.stem, [path.name], Problem("left out", str(error), ""), [], [], "", "")
            )
    if len(refused) == len(paths):
        raise refused[0]

    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATE), autoescape=True)
    summary = summary_of([path.parent for path in paths])
    sliders = {path.parent: each.slider for path, each in zip(paths, sections, strict=True) if each.slider}
    of_run, slider = first_slider(sliders, summary.runs if summary else [])
    page = templates.get_template("page.html.j2").render(
        title=title, sections=sections, style=_style(), summary=summary, slider=slider, of_run=of_run
    )
    with replacing(Path(out)) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return Path(out)


def first_slider(sliders: dict[Path, str], best_first: list[Path]) -> tuple[str, str]:
    """The name and the slider of the best run whose slider moves, or else of the best that has one."""
    having = [folder for folder in best_first if folder in sliders]
    moving = [folder for folder in having if 'type="radio"' in sliders[folder]]
    return next(((folder.name, sliders[folder]) for folder in [*moving, *having]), ("", ""))


def _read(path: Path) -> nbformat.NotebookNode:
    how = f"run it with `tok1d run notebooks/{path.name}`"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: {how}.")
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook, relax_add_props=True)
    except Exception as error:
        raise ConfigError(f"{path} is not a readable notebook: {how} again.") from error
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if code and not any(cell.execution_count or cell.outputs for cell in code):
        raise ConfigError(f"{path} was never run: {how}.")
    return notebook


def _section(exporter: HTMLExporter, path: Path, notebook: nbformat.NotebookNode, id: str) -> Section:
    notebook.cells = [cell for cell in notebook.cells if "papermill-error-cell-tag" not in _tags(cell)]
    for cell in notebook.cells:
        if "injected-parameters" in _tags(cell):  # with --inject-paths it tells paths of that machine
            cell.source = re.sub(r"^PAPERMILL_.*\n?", "", cell.source, flags=re.MULTILINE)
    fragment, _ = exporter.from_notebook_node(notebook)
    soup = BeautifulSoup(fragment, "html.parser")
    embed(soup, path.parent)
    disarm(soup)
    fit_tables(soup)
    describe_pictures(soup)
    for text in soup("pre"):
        text["tabindex"] = "0"  # what scrolls is reached by keys

    first = soup.select_one(".prose h1")
    title = first.extract().get_text() if first else path.stem
    if (path.parent / "params.yaml").is_file():
        title += f" · {path.parent.name}"
    headings = _anchors(soup, id)
    for error in soup.select(".output_error")[:1]:
        error["id"] = f"{id}--error"

    run = notebook.metadata.get("papermill", {})
    details = [path.name]
    with suppress(ValueError, TypeError, KeyError):  # what else people write there
        details.append(datetime.fromisoformat(run["start_time"]).astimezone().strftime("%Y-%m-%d %H:%M"))
    with suppress(ValueError, TypeError, KeyError, OverflowError):
        details.append(f"took {timedelta(seconds=round(run['duration']))}")
    slider = str(soup.select_one(".tok1d-slider") or "")
    problem, parameters = _problem(notebook, id), _parameters(notebook)
    return Section(id, title, details, problem, parameters, headings, slider, str(soup))


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _problem(notebook: nbformat.NotebookNode, id: str) -> Problem | None:
    """Read from the cells: a killed kernel leaves papermill's own metadata looking like success."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                said = f"{output.ename}: {output.evalue}".splitlines()[0][:300]
                return Problem("failed", f"in code cell {number} of {len(code)}: {said}", f"{id}--error")
    ran = sum(cell.execution_count is not None for cell in code)
    if ran < len(code):
        return Problem("stopped early", f"{ran} of {len(code)} code cells ran.", "")
    return None


def _parameters(notebook: nbformat.NotebookNode) -> list[Parameter]:
    """The notebook's `parameters` cell, overridden by what papermill injected."""
    found: dict[str, Parameter] = {}
    for tag in ("parameters", "injected-parameters"):
        source = "\n".join(cell.source for cell in notebook.cells if tag in _tags(cell))
        for name, value, comment in _assignments(source):
            default = found.get(name)
            changed = tag == "injected-parameters" and not (default and _same(default.value, value))
            found[name] = Parameter(name, value, default.help if default else comment, changed)
    return list(found.values())


def _assignments(source: str) -> list[tuple[str, str, str]]:
    """Python source → (name, value as written, comment on the same line) of each top-level assignment."""
    try:
        tree, lines = ast.parse(source), source.splitlines()
    except SyntaxError:
        return []
    found = []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if len(targets) == 1 and isinstance(targets[0], ast.Name) and getattr(node, "value", None):
            rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
            value = ast.get_source_segment(source, node.value)
            found.append((targets[0].id, value, rest.strip().lstrip("# ")))
    return found


def _same(one: str, other: str) -> bool:
    """Do two expressions mean the same? `1e-4` and `0.0001` do, and so do "a" and 'a'."""
    return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))


def _anchors(soup: BeautifulSoup, id: str) -> list[tuple[str, str]]:
    """Give headings an id that no other notebook of the page has; point this notebook's own links there."""
    headings, used = [], set()
    for heading in soup.select(".prose h1, .prose h2, .prose h3, .prose h4"):
        text = heading.get_text()
        anchor = f"{id}--{text.strip().replace(' ', '-')}"
        while anchor in used:
            anchor += "-"
        used.add(anchor)
        heading["id"] = anchor
        if heading.name == "h2":
            headings.append((anchor, text))
    for link in soup.select('.prose a[href^="#"]'):
        link["href"] = f"#{id}--{link['href'][1:]}"
    return headings


# ------------------------------------------------------------------------------------------- notebook → HTML


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=False, exclude_anchor_links=True, attachments=attachments)
        return MarkdownWithMath(renderer=renderer).render(source)


class _Renderer(IPythonRenderer):
    """Markdown with formulas drawn here, because a report cannot load MathJax."""

    def inline_math(self, body: str) -> str:
        return formula(body)

    def block_math(self, body: str) -> str:
        return formula(body, block=True)


def _exporter() -> HTMLExporter:
    shown = [
        "text/html",
        "image/svg+xml",
        "image/png",
        "image/jpeg",
        "text/markdown",
        "text/latex",
        "text/plain",
    ]
    log = logging.getLogger("tok1d.jupyter.report")
    log.setLevel(logging.ERROR)  # nbconvert warns about each picture without alternative text
    exporter = _Exporter(
        template_name=TEMPLATE.name,
        extra_template_basedirs=[str(TEMPLATE.parent)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        config=Config({"NbConvertBase": {"display_data_priority": shown}}),
        log=log,
    )
    exporter.register_preprocessor("nbconvert.preprocessors.CoalesceStreamsPreprocessor", enabled=True)
    exporter.register_filter("latex", lambda tex: formula(tex.strip().strip("$"), block=True))
    return exporter


def formula(tex: str, block: bool = False) -> str:
    """TeX without its dollars → inline SVG, or the TeX itself as code where mathtext lacks a command."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    tex = " ".join(tex.split())
    try:
        drawable = tex.replace(r"\frac", r"\dfrac") if block else tex
        path = TextPath((0, 0), f"${drawable}$", size=100, prop=FontProperties(math_fontfamily="stix"))
    except ValueError:
        code = f"<code>{html.escape(tex)}</code>"
        return f"<p>{code}</p>" if block else code
    box = path.get_extents()
    em = 92  # units of a glyph's em shown as 1em; a little under 100 matches the text beside it
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    drawn = "".join(
        letters[int(code)]
        + ("" if code == 79 else " ".join(f"{v:.0f}" for v in points * ([1, -1] * (len(points) // 2))))
        for points, code in path.iter_segments(simplify=False)
    )
    return (
        f'<svg class="formula{" block" if block else ""}" role="img" aria-label="{html.escape(tex)}" '
        f'viewBox="{box.x0:.0f} {-box.y1:.0f} {box.width:.0f} {box.height:.0f}" '
        f'style="width:{box.width / em:.2f}em;height:{box.height / em:.2f}em;'
        f'vertical-align:{box.y0 / em:.2f}em"><path d="{drawn}"/></svg>'
    )


def _style() -> str:
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    colors = re.sub(r"/\*.*?\*/", "", f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n")
    return colors + (TEMPLATE / "style.css").read_text(encoding="utf-8")
