"""The command line itself: exit statuses, one sentence for an error, help that is whole and quick."""

import subprocess
import sys

import pytest
import typer
from workbench import ENV, REPO

from tok1d import __version__
from tok1d.cli import app, main
from tok1d.runs import TRY_AGAIN, Lost, RunError


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Missing command"),
        (["trian"], "Did you mean 'train'?"),
        (["run"], "Missing argument 'notebook' (see 'tok1d run --help')"),
        (["run", "x.ipynb", "--limit", "soon"], "'--limit'"),
        (["train", "--bogus"], "No such option: --bogus (see 'tok1d train --help')"),
        (["params", "nope"], "'nope' is not one of 'ablation'"),
        (["publish", "outputs/toy"], "Missing option '--title'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_status_2(words, sentence, capsys):
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert not out and error.startswith("tok1d: ") and sentence in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "status", "says"),
    [
        (RunError("nothing there"), 1, "tok1d: nothing there\n"),
        (Lost("its machine is gone"), TRY_AGAIN, "tok1d: its machine is gone\n"),
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "No space left on device"), 1, "tok1d: the disk is full"),
        (
            OSError(13, "", "/a/b"),
            1,
            "tok1d: /a/b cannot be used (permission denied): give yourself the right",
        ),
        (
            OSError(30, "", "/a/b"),
            1,
            "tok1d: /a/b cannot be used (read-only file system): mount it for writing",
        ),
    ],
)
def test_each_way_to_fail_has_its_status(raised, status, says, monkeypatch, capsys):
    def fail(*_):
        raise raised

    monkeypatch.setattr("tok1d.jupyter.execute.execute", fail)
    assert main(["run", "x.ipynb"]) == status
    assert capsys.readouterr().err.startswith(says)


def test_what_only_we_can_have_caused_keeps_its_traceback(monkeypatch):
    before = (
        sys.excepthook
    )  # Python's own, or torch.distributed's, if an earlier test started a process group
    monkeypatch.setattr("tok1d.jupyter.execute.execute", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["run", "x.ipynb"])
    assert sys.excepthook is before


def test_files_and_parameters_may_be_given_often_and_the_later_wins(monkeypatch, tmp_path):
    (tmp_path / "one.yaml").write_text("steps: 1\nseed: 1\nlr: 1")
    (tmp_path / "two.yaml").write_text("steps: 2\nseed: 2")
    seen = []
    monkeypatch.setattr("tok1d.jupyter.execute.execute", lambda *arguments: seen.append(arguments))
    files = [word for name in ("one", "two") for word in ("-f", str(tmp_path / f"{name}.yaml"))]
    assert main(["run", *files, "-p", "steps=3", "x.ipynb", "-psteps=4", "--grace", "5"]) == 0
    ((notebook, params, limit, grace),) = seen
    assert notebook.name == "x.ipynb" and limit is None and grace == 5
    assert params == {"steps": "4", "seed": 2, "lr": 1}


def test_help_is_whole_and_imports_nothing_heavy(capsys):
    commands = typer.main.get_command(app).commands
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"tok1d {__version__}\n"
    for name in commands:
        assert main([name, "--help"]) == 0
        assert "\x1b" not in capsys.readouterr().out
    assert main(["-h"]) == 0
    said = capsys.readouterr().out.split("Commands:")[1]
    assert all(f"\n  {name} " in said for name in commands) and "..\n" not in said  # no sentence is cut
    heavy = "{'torch', 'IPython', 'pandas', 'matplotlib', 'rich', 'nbconvert', 'tensorboard'}"
    code = (
        f"import sys; from tok1d.cli import main; main(['-h']); sys.exit({heavy} & set(sys.modules) or None)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=ENV, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_runners_sweeps_and_figures_of_numbers_start_without_pytorch():
    modules = "tok1d.sweeps.run, tok1d.figures.draw, tok1d.jupyter.report, tok1d.jupyter.execute, papermill"
    heavy = "{'torch', 'pandas', 'rfc3987_syntax.syntax_helpers'}"
    code = f"import sys, {modules}; sys.exit({heavy} & set(sys.modules) or None)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=ENV, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_evaluate_takes_data_as_messages_about_images_say_it(monkeypatch):
    import tok1d.evaluation.runs

    asked: list[str] = []
    monkeypatch.setattr("tok1d.system.processes.end_with_stdin", lambda: None)
    monkeypatch.setattr(
        tok1d.evaluation.runs, "evaluate_runs", lambda runs, config, data: asked.append(data) or []
    )
    assert main(["evaluate", "a", "-p", "data=photos", "-p", "metrics=psnr"]) == 0
    assert main(["evaluate", "a", "--data", "others"]) == 0 and asked == ["photos", "others"]


def test_garbage_is_looked_for_as_ever_after_a_million_objects():
    code = (
        "import gc; usual = gc.get_threshold(); import tok1d; begun = gc.get_threshold()[0];"
        "kept = [[] for _ in range(1_000_001)]; print(begun, gc.get_threshold() == usual, len(gc.callbacks))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert process.stdout.split() == ["1000000", "True", "0"], process.stderr
