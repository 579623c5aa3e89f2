"""What people do to files and folders ends in one sentence, whichever command meets it; never a traceback."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from evaluating import finished_run
from small_run import start
from workbench import ENV, REPO, TINY, command

from tok1d.cli import main
from tok1d.config.fields import ConfigError
from tok1d.models.tokenizer import Tokenizer
from tok1d.runs import Run
from tok1d.runs.find import runs_in
from tok1d.training.train import train

FEW = ["-p", "linear_code=false", "-p", "resamples=0"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """A run of four steps, finished and evaluated."""
    run, images, tokenizer, config = start(
        tmp_path_factory.mktemp("whole"), steps=4, log_every=1, encoder="vit"
    )
    train(run, images, tokenizer, config)
    run.finish()
    assert main(["evaluate", str(run.path), "-p", "resamples=0"]) == 0
    return run


@pytest.fixture
def run(whole, tmp_path) -> Run:
    shutil.copytree(whole.path, tmp_path / "outputs" / "runs" / "quickstart")
    return Run(tmp_path / "outputs" / "runs" / "quickstart")


def refused(capsys, *words: object) -> str:
    """The one sentence that a command ends with."""
    capsys.readouterr()
    status = main([str(word) for word in words])
    said = capsys.readouterr().err
    assert status == 1 and said.startswith("tok1d: ") and said.count("\n") == 1, said
    return said.removeprefix("tok1d: ")


# ---- files of a run that were edited, or cut ----

NONSENSE = (
    b"", b"{", b"[]", b"null", b"3", b'"x"', b"- 1\n", b"\xff\xfe", b'{"results": 3, "parameters": 3}',
    b'{"results": [{}], "card": {}, "parameters": [1]}', b'{"parameters": [{}], "results": [[]], "card": 1}',
    b'{"card": {}, "results": [{"num_tokens": 4, "psnr": "high"}], "parameters": [{"part": 1}]}',
)  # fmt: skip


@pytest.mark.parametrize("content", NONSENSE, ids=repr)
@pytest.mark.parametrize("name", ["params.yaml", "eval.json", "load_report.json", "diagnoses.json"])
def test_a_damaged_file_of_a_run_is_named_with_what_to_do(run, name, content, capsys):
    (run / name).write_bytes(content)
    if name == "diagnoses.json" and content == b"[]":
        return  # as good as any
    if name == "params.yaml" and (content in (b"", b"null") or content.startswith(b'{"')):
        said = refused(capsys, "evaluate", run.path, *FEW)
        assert "params.yaml lacks outputs: bring the whole file back" in said
        return
    said = refused(capsys, "doctor", run.path)
    assert f"{run / name} is damaged (" in said
    if name == "eval.json":
        assert f"'tok1d evaluate {run.path}'" in said and main(["evaluate", str(run.path), *FEW]) == 0
    elif name.endswith(".json"):
        assert f"type 'rm {run / name}'" in said
        (run / name).unlink()
    else:
        assert "is damaged" in refused(capsys, "evaluate", run.path, *FEW)
        return
    assert main(["doctor", str(run.path)]) in (0, 1) and not capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("steps", "many", "steps must be a whole number, got 'many'"),
        ("lr", -1, "lr must be more than 0"),
        ("data", [1, 2], "data must be text"),
        ("image_size", None, "image_size must be a whole number, got None"),
    ],
)
def test_an_edited_parameter_of_a_run_is_named(run, name, value, says, capsys):
    params = yaml.safe_load((run / "params.yaml").read_text()) | {name: value}
    (run / "params.yaml").write_text(yaml.safe_dump(params))
    for words in (["doctor", run.path], ["evaluate", run.path, *FEW]):
        assert f"{run / 'params.yaml'} is damaged ({says}" in refused(capsys, *words)


@pytest.mark.parametrize("line", ["{}", "[]", '{"step": 2}', '{"step": 9, "loss": "low"}', '{"step": {}}'])
def test_an_odd_line_among_the_metrics_costs_no_other(run, line, capsys):
    before = run.metrics
    (run / "metrics.jsonl").write_text(line + "\n" + (run / "metrics.jsonl").read_text())
    assert main(["doctor", str(run.path)]) in (0, 1) and f"{run.path}, 4 steps" in capsys.readouterr().out
    assert run.metrics[-4:] == before


# ---- folders that are files, names that are taken ----


@pytest.mark.parametrize("words", [["train"], ["run", "notebooks/train.ipynb"]], ids=" ".join)
def test_results_that_can_go_nowhere(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPO)
    params = [text for name, value in TINY.items() for text in ("-p", f"{name}={value}")]
    said = refused(capsys, *words, *params, "-p", "outputs=/dev/null")
    assert said.startswith("/dev/null/runs/quickstart cannot be used (not a directory): move away")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").write_text("a file")
    said = refused(capsys, *words, *params, "-p", f"outputs={tmp_path}")
    assert said.startswith(f"{tmp_path}/runs/quickstart cannot be used (file exists): move away")
    for name in ("report.html", "figures"):
        said = refused(capsys, *words, *params, "-p", f"run={name}")
        assert f"run must not be {name}, which a sweep writes beside its runs" in said


@pytest.mark.parametrize(
    "words",
    [["doctor"], ["evaluate"], ["report"], ["watch"], ["publish", "--title", "x"]], ids=" ".join,
)  # fmt: skip
def test_a_file_is_no_folder_of_results(words, capsys):
    assert str(REPO / "README.md") in refused(capsys, *words, REPO / "README.md")


# ---- notebooks ----

CELL = '{"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "%s"}]}'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        *((text, "is no notebook: type one such as notebooks/train.ipynb") for text in
          ("# Readme", "", "{", "{}", "[]", '{"cells": 3}', '{"cells": [{}]}')),
        (CELL % "a = f()", "does not give plain values (ValueError): write NAME = VALUE"),
        (CELL % "a = (", "does not give plain values (SyntaxError): write NAME = VALUE"),
    ],
)  # fmt: skip
def test_what_is_no_notebook_is_not_run(content, says, tmp_path, capsys):
    (tmp_path / "README.md").write_text(content)
    assert (
        f"{tmp_path}/README.md" in (said := refused(capsys, "run", tmp_path / "README.md")) and says in said
    )


def test_one_unreadable_notebook_is_named_in_the_report_of_the_others(tmp_path, capsys):
    import nbformat

    good = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", execution_count=1)])
    good.metadata["papermill"] = {"start_time": "yesterday", "duration": "long"}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        nbformat.write(good, tmp_path / name / "train.ipynb")
    (tmp_path / "b" / "train.ipynb").write_text("{")
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("left out") == 2 and "b/train.ipynb is not a readable notebook" in page
    (tmp_path / "a" / "train.ipynb").write_text('{"cells": [{}]}')
    assert "a/train.ipynb is not a readable notebook" in refused(capsys, "report", tmp_path)


def test_a_second_runner_waits_its_turn(tmp_path):
    """While the first trains: it has the notebook that is being written, and no other may touch that."""
    words = command("train", tmp_path, **TINY | {"steps": 100_000})
    first = psutil.Popen(words, cwd=REPO, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        running = tmp_path / "runs" / "quickstart" / ".train.running.ipynb"
        while not running.exists():
            assert first.poll() is None
            time.sleep(0.1)
        inode = os.stat(running).st_ino
        second = subprocess.run(words, cwd=REPO, env=ENV, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1 and second.stderr.count("\n") == 1
        assert "another process executes notebooks/train.ipynb" in second.stderr
        assert os.stat(running).st_ino == inode and first.poll() is None
    finally:
        for process in [first, *first.children(recursive=True)]:
            process.kill()
        first.wait(10)


# ---- sweeps ----

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{chr(i + 1)}: &{chr(i + 1)} [{', '.join([f'*{chr(i)}'] * 10)}]\n" for i in range(ord("a"), ord("i"))
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grid: {seed: []}", "grid: {seed: []} is a sweep of no run: give it values, or leave it out"),
        ("cells: []", "is a sweep of no run"),
        ("cells: [{base: [1]}]", "there is no parameter file [1]"),
        ("cells: [{run: figures}]", "run must not be figures"),
        (BOMB, "holds more than 100,000 values"),
        ("grid: {seed: &a [*a]}", "is not valid YAML"),
    ],
    ids=["no seed", "no cell", "odd base", "taken name", "alias bomb", "endless alias"],
)
def test_sweeps_that_are_none(text, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPO)
    (tmp_path / "s.yaml").write_text(text)
    assert says in refused(capsys, "sweep", tmp_path / "s.yaml", "--dry-run")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"cells": 3}', '{"cells": [{"run": 1}]}'])
def test_a_damaged_plan_is_not_watched(content, tmp_path, capsys):
    (tmp_path / "sweep.json").write_text(content)
    assert f"{tmp_path / 'sweep.json'} is damaged (" in refused(capsys, "watch", tmp_path)


# ---- models ----


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nowhere", "there is no folder nowhere: give a folder such as outputs/runs/quickstart/model"),
        ("/no/where", "there is no folder /no/where: give"),
        ("./no", "there is no folder ./no: give"),
        ("~/no/where", "there is no folder ~/no/where"),
        ("a b/c", "there is no folder a b/c"),
        ("nobody/nothing", "there is no folder nobody/nothing, and as a hub id it cannot be fetched"),
        ("nobody/nothing@v1", "there is no folder nobody/nothing, and as a hub id it cannot be fetched"),
    ],
)
def test_a_tokenizer_that_is_not_there_is_missed_at_once(given, says, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        Tokenizer.from_pretrained(given)
    assert str(caught.value).startswith(says) and time.monotonic() - began < 5


def test_a_run_is_told_where_its_model_is(run):
    with pytest.raises(ConfigError, match=f"type {run.path}/model"):
        Tokenizer.from_pretrained(run.path)


# ---- commands that go on ----


def test_the_doctor_sees_all_runs_of_a_sweep(tmp_path, run, capsys):
    shutil.copytree(run.path, run.path.parent / "second")
    assert [each.name for each in runs_in(run.path.parent)] == ["quickstart", "second"]
    assert main(["doctor", str(run.path.parent)]) in (0, 1)
    assert capsys.readouterr().out.count(", 4 steps") == 2


def test_prefetch_goes_on_after_what_cannot_be_had_and_says_who_needs_it(tmp_path, capsys):
    parent = finished_run(tmp_path / "outputs", "parent")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(
            f"encoder_init: timm:{name}\nencoder_checkpoint: {tmp_path}/{name}.pth\nencoder: vit\n"
        )
    whole = f"perceptual_weight=1 perceptual_checkpoint={parent.path}/model/model.safetensors".split()
    assert main(["prefetch", str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml"), *whole]) == 1
    out, said = capsys.readouterr()
    assert "model.safetensors" in out
    for name in ("one", "two"):
        assert (
            f"{tmp_path}/{name}.yaml needs what is not here: there is no file {tmp_path}/{name}.pth" in said
        )


def test_the_same_in_a_process_of_its_own(tmp_path):
    """Nothing of Python's is printed, whatever it thinks of the error."""
    (tmp_path / "params.yaml").write_text(json.dumps([1]))
    words = [sys.executable, "-m", "tok1d.cli", "doctor", str(tmp_path)]
    done = subprocess.run(words, cwd=REPO, env=ENV, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and str(Path(tmp_path)) in done.stderr
