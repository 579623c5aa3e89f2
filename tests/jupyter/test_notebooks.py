"""Every notebook as people run it: by the runner, by plain papermill, in JupyterLab; and how each is kept."""

import ast
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import nbformat
import pytest
import yaml
from browser import accessibility_faults, chromium, differ, jupyter_lab, open_in_lab, pixels, run_all
from bs4 import BeautifulSoup
from workbench import ENV, REPO, TINY, command, tok1d_run, train_tiny

from tok1d.cli import main
from tok1d.config.notebooks import configs_of
from tok1d.config.parse import assigned, parse, parse_train, read_params
from tok1d.figures.draw import FIGURES
from tok1d.figures.series import LINEAR
from tok1d.jupyter.execute import execute
from tok1d.jupyter.report import build_report, executed_notebooks
from tok1d.runs import UNDER_RUNNER, Lost, Run, RunError

SHIPPED = sorted((REPO / "notebooks").glob("*.ipynb"))


FIXED = {"run": "fixed", "elastic": "false", "quantizer": "vq", "lr": "1e-4", "token_counts": "4"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """All notebooks through the runner: two runs, reconstructions, ablation, figures, report."""
    outputs = tmp_path_factory.mktemp("outputs")
    with ThreadPoolExecutor() as both:
        trained = list(both.map(lambda params: train_tiny(outputs, **params), ({}, FIXED)))
    steps = [tok1d_run(name, outputs) for name in ("reconstruct", "ablation", "figures")]
    steps.append(tok1d_run("explore", outputs, toy_val_images=12, toy_images=12, show_images=2))
    for step in [*trained, *steps]:
        assert step.returncode == 0, step.stdout + step.stderr
    return outputs / "runs"


def test_the_runner_leaves_everything(sweep):
    run = Run(sweep / "quickstart")
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "params.yaml", "train.ipynb", "metrics.jsonl", "last.ckpt", "model", "eval.json", "recon",
        "manifest.json", "done.json", "reconstruct.ipynb", "train.log",
    }  # fmt: skip
    assert not [name for name in names if "running" in name or "failed" in name or "tmp" in name]
    assert [r["num_tokens"] for r in run.evaluation["results"]] == [1, 2, 4]
    assert {"images", "resize", "data_fingerprint", "image_size"} <= run.evaluation["card"].keys()
    figures = {path.name for path in (sweep / "figures").iterdir()}
    for name in set(FIGURES) - {"encoders", "elastic", "guidance"}:
        assert {f"{name}.png", f"{name}.pdf", f"{name}.json"} <= figures
    said = (sweep / "figures.log").read_text()
    assert "encoders is not drawn" in said and "make them with 'tok1d run notebooks/reconstruct.ipynb" in said
    assert (
        "elastic is not drawn: it needs both elastic and fixed runs that are alike" in said
    )  # of one quantizer


def test_figures_draw_the_numbers_in_the_run_folders(sweep, tmp_path):
    drawn = json.loads((sweep / "figures" / "quality.json").read_text())["drawn"]
    for run in (Run(sweep / "quickstart"), Run(sweep / "fixed")):
        own = [d for d in drawn if d["run"] == str(run.path) and d["series"] != LINEAR]
        mine = {d["num_tokens"]: d["psnr"] for d in own}
        assert mine == {r["num_tokens"]: r["psnr"] for r in run.evaluation["results"]}
    shutil.copytree(sweep, tmp_path / "runs")
    other = Run(tmp_path / "runs" / "fixed")
    other.write_json("eval.json", other.evaluation | {"card": other.evaluation["card"] | {"images": 5}})
    result = tok1d_run("ablation", tmp_path)
    assert result.returncode == 1 and "images=" in result.stderr and "evaluate both" in result.stderr


def test_plain_papermill_gives_the_same_run(sweep, tmp_path):
    params = TINY | {"outputs": str(tmp_path), "elastic": True}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(params | {"lr": 0.5}))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"base": str(tmp_path / "base.yaml"), "lr": "1e-3"}))
    result = papermill("train", tmp_path, "-f", str(tmp_path / "params.yaml"))
    assert result.returncode == 0, result.stderr
    plain, ours = Run(tmp_path / "runs" / "quickstart"), Run(sweep / "quickstart")
    assert (plain / "done.json").exists()
    assert (plain / "metrics.jsonl").read_bytes() == (ours / "metrics.jsonl").read_bytes()


def papermill(notebook: str, folder, *args: str) -> subprocess.CompletedProcess:
    out = folder / f"{notebook}.ipynb"
    args = [
        sys.executable,
        "-m",
        "papermill",
        f"notebooks/{notebook}.ipynb",
        str(out),
        "--no-progress-bar",
        *args,
    ]
    return subprocess.run(args, cwd=REPO, env=ENV, capture_output=True, text=True)


BAD = {
    "misspelt": ("num_latent_tokns", "32", "did you mean num_latent_tokens?"),
    "wrong type": ("num_latent_tokens", "many", "num_latent_tokens must be a whole number"),
    "impossible": ("num_latent_tokens", "0", "num_latent_tokens must be at least 1"),
}


@pytest.mark.parametrize("name, value, sentence", BAD.values(), ids=BAD)
def test_bad_parameters_fail_before_training(tmp_path, name, value, sentence):
    ours = tok1d_run("train", tmp_path, **{name: value})
    assert ours.returncode == 1 and sentence in ours.stderr and ours.stderr.count("\n") == 1
    if name != "num_latent_tokens":  # under papermill a name that its cell lacks is the hard case
        theirs = papermill("train", tmp_path, "-p", "outputs", str(tmp_path / "o"), "-p", name, value)
        assert theirs.returncode == 1 and f"ConfigError: {name}" in theirs.stderr
        assert sentence in theirs.stderr
    assert not list(tmp_path.glob("**/last.ckpt")) and not list(tmp_path.glob("**/metrics.jsonl"))


def test_bad_data_is_one_sentence_too(tmp_path):
    result = train_tiny(tmp_path, data=tmp_path / "nowhere")
    assert result.returncode == 1 and result.stderr.endswith("or a .txt file of image paths\n")
    assert "Traceback" not in result.stderr and not list(tmp_path.glob("**/last.ckpt"))


def test_a_notebook_over_its_limit_is_stopped_and_continues(tmp_path):
    long = TINY | dict(steps=100_000, checkpoint_every=100_000)
    started = time.monotonic()
    arguments = [*command("train", tmp_path, **long), "--limit", "30"]
    result = subprocess.run(arguments, cwd=REPO, env=ENV, capture_output=True, text=True)
    assert result.returncode == 1 and "over its limit of 30" in result.stderr
    assert time.monotonic() - started < 90
    run = Run(tmp_path / "runs" / "quickstart")
    assert (run / "last.ckpt").exists() and (run / "train.failed.ipynb").exists() and not run.done


def test_missing_notebook_and_missing_run_say_what_to_type(tmp_path):
    assert "type one of notebooks/ablation.ipynb" in tok1d_run("abaltion", tmp_path).stderr
    assert "there is no finished run" in tok1d_run("ablation", tmp_path).stderr
    assert "train it with 'tok1d run notebooks/train.ipynb -p run=nope'" in tok1d_run(
        "reconstruct", tmp_path, run="nope"
    ).stderr  # fmt: skip


def test_a_notebook_without_its_run_opens_the_newest_finished_one(sweep, tmp_path):
    """If none was named; one that was named is refused, and the newest are offered, and no folder is left."""
    shutil.copytree(sweep, tmp_path / "mine")
    (tmp_path / "mine" / "fixed" / "done.json").touch()
    mine = tok1d_run("reconstruct", tmp_path)
    assert mine.returncode == 0, mine.stderr
    assert (
        f"this is {tmp_path}/mine/fixed; the newest finished ones are -p sweep=mine -p run=fixed"
        in mine.stdout
    )
    assert not (tmp_path / "runs").exists()
    named = tok1d_run("reconstruct", tmp_path, run="other")
    assert named.returncode == 1 and "-p sweep=mine -p run=fixed, -p sweep=mine -p run=" in named.stderr
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------------------------------- in a browser


def test_the_slider_moves_in_jupyterlab(sweep, tmp_path):
    """reconstruct.ipynb as it is shipped, opened, all cells run, the slider moved with the keyboard."""
    git = repository(tmp_path, "reconstruct")
    (tmp_path / "params").mkdir()
    shutil.copytree(sweep, tmp_path / "outputs" / "runs")
    run = Run(tmp_path / "outputs" / "runs" / "quickstart")
    run.write_text("params.yaml", yaml.safe_dump(run.params | {"outputs": "outputs"}))
    with jupyter_lab(tmp_path) as lab, chromium() as browser:
        open_in_lab(browser.page, lab, "notebooks/reconstruct.ipynb")
        run_all(browser.page)
        shown = browser.page.locator(".tok1d-slider figure:visible")
        shown.scroll_into_view_if_needed()
        browser.page.locator(".tok1d-slider input:checked").focus()
        before = pixels(shown)
        browser.page.keyboard.press("ArrowRight")
        browser.page.wait_for_timeout(500)
        assert differ(before, pixels(shown)) > 0.01
        assert git("status", "--porcelain") == ""
        browser.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        assert "output_type" in (tmp_path / "notebooks" / "reconstruct.ipynb").read_text()
        assert git("diff") == ""  # saving is no change


def test_a_notebook_that_was_saved_otherwise_is_a_change(tmp_path):
    git = repository(tmp_path, "train")
    path = tmp_path / "notebooks" / "train.ipynb"
    notebook = nbformat.read(path, 4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="hello")], 7
    notebook.metadata.language_info |= {"version": "3.12", "codemirror_mode": {"name": "ipython"}}
    nbformat.write(notebook, path)
    assert git("diff") == ""
    git("add", "-u")  # before it `git status`, which looks at sizes first, names the file
    assert git("status", "--porcelain") == ""
    cell.source += "\nsteps = 1"
    nbformat.write(notebook, path)
    assert "steps = 1" in git("diff")


def repository(folder, name):
    """A notebook in a git repository, with the filter that `make env` sets up."""
    (folder / "notebooks").mkdir()
    shutil.copy(REPO / "notebooks" / f"{name}.ipynb", folder / "notebooks")
    for name in ("Makefile", ".gitattributes"):
        shutil.copy(REPO / name, folder)
    (folder / ".gitignore").write_text("outputs\nparams\n.*\n")

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True)
        assert not done.returncode and not done.stderr, done.stderr
        return done.stdout.strip()

    git("init", "-q")
    subprocess.run(["make", "-s", "filter", f"VENV={sys.prefix}"], cwd=folder, check=True)
    git("add", "notebooks", "-f", ".gitattributes", "Makefile", ".gitignore")
    git("commit", "-qm", "notebooks")
    return git


def test_the_report_is_alive_offline(sweep):
    result = subprocess.run(
        [sys.executable, "-m", "tok1d.cli", "report", str(sweep)],
        cwd=REPO,
        env=ENV,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    with chromium() as browser:
        browser.page.goto((sweep / "report.html").as_uri())
        headings = browser.page.locator("h1").all_inner_texts()
        assert sorted(headings) == sorted(
            [f"Train a tokenizer · {name}" for name in ("fixed", "quickstart")]
            + ["Reconstruct · quickstart", "Token-count ablation", "Figures", "Explore", "tok1d · runs"]
        )
        text = browser.page.locator("#summary").inner_text()
        best = max((r["psnr"], name) for name in ("quickstart", "fixed")
                   for r in Run(sweep / name).evaluation["results"])  # fmt: skip
        assert f"Best: {best[1]}, {best[0]:.2f} dB" in text and "a linear code of as many bits" in text
        assert not browser.page.locator("img:not([alt]), img[alt=''], img[alt*='No description']").count()
        for width, height in ((1280, 800), (390, 844)):
            browser.page.set_viewport_size({"width": width, "height": height})
            box = browser.page.locator(".tok1d-slider").first.bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= height, (width, box)
        browser.page.set_viewport_size({"width": 1280, "height": 800})
        slider = browser.page.locator(".tok1d-slider input:checked").first
        slider.scroll_into_view_if_needed()
        slider.focus()
        before = pixels(browser.page.locator("body"))
        browser.page.keyboard.press("ArrowRight")
        browser.page.wait_for_timeout(300)
        assert differ(before, pixels(browser.page.locator("body"))) > 0
        assert not browser.outside


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_is_accessible(sweep, scheme, width):
    page = build_report(executed_notebooks(sweep), sweep / "report.html")
    with chromium(width=width) as browser:
        browser.page.emulate_media(color_scheme=scheme)
        browser.page.goto(page.as_uri())
        browser.page.keyboard.press("Tab")
        assert browser.page.evaluate("document.activeElement.getAttribute('href')") == "#content"  # skip link
        assert accessibility_faults(browser.page) == []


def test_hashes_zeros_and_empty_tables_are_not_what_one_reads_first(sweep):
    page = build_report(executed_notebooks(sweep), sweep / "report.html").read_text()
    soup = BeautifulSoup(page, "html.parser")
    for table in soup("table"):
        assert table.find_parent("details") or not re.search(r"\b[0-9a-f]{16,}\b", table.get_text())
        assert table.select("tbody td")
    assert "All weights start at random." in page and "tensors loaded" not in page and ".lock" not in page


# ------------------------------------------------------------------------------------------ how they are kept


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shape_of_a_notebook(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = [cell.source.splitlines() for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) <= 20 and max(map(len, code)) <= 20 and statistics.median(map(len, code)) < 6
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert all(
        not cell.outputs and cell.execution_count is None
        for cell in notebook.cells
        if cell.cell_type == "code"
    )
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and tagged[0].source.startswith("# Parameters")
    for line in tagged[0].source.splitlines()[1:]:
        assert "  # " in line and ":" in line.split("=")[0], f"a type and a comment: {line}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_parameters_cell_repeats_the_defaults_of_the_schema(path):
    assert parse(defaults(path.stem), *configs_of(path.stem)) == parse({}, *configs_of(path.stem))


def test_params_are_those_of_a_run(sweep, capsys, monkeypatch):
    """`tok1d params train -p x` prints the `params.yaml` of a run made with the same `-p x`."""
    monkeypatch.chdir(REPO)
    given = TINY | FIXED | {"outputs": sweep.parent}
    assert main(["params", "train", *(word for n, v in given.items() for word in ("-p", f"{n}={v}"))]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == yaml.safe_load((sweep / "fixed" / "params.yaml").read_text())
    assert yaml.safe_load("lr: 1e-4") == {"lr": "1e-4"} and printed["lr"] == 1e-4  # YAML's trap: text


def test_quickstart_is_what_the_train_notebook_does_by_itself():
    quickstart = yaml.safe_load((REPO / "params" / "quickstart.yaml").read_text())
    assert parse_train(quickstart) == parse_train({})


@pytest.mark.parametrize("path", sorted((REPO / "params").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_params_file_is_valid(path):
    parse_train(read_params(path))


def defaults(notebook: str) -> dict:
    cells = nbformat.read(REPO / "notebooks" / f"{notebook}.ipynb", 4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    return {name: ast.literal_eval(value) for name, value in assigned([source]).items()}


def test_values_that_no_notebook_can_hold_are_no_lost_kernel(tmp_path, monkeypatch):
    """A run that can never succeed is not to be tried again."""
    for name in (UNDER_RUNNER, "TOK1D_HEADLESS"):  # which `execute` sets for good
        monkeypatch.setenv(name, "1")
    with pytest.raises(RunError, match=r"train.ipynb cannot be executed \(TypeError: .*date") as caught:
        execute(REPO / "notebooks/train.ipynb", {"outputs": str(tmp_path), "run": date(2025, 1, 31)})
    assert not isinstance(caught.value, Lost)
