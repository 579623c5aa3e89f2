"""Parameterized notebooks, from both sides: `parameters()` inside one, `execute()` outside.

papermill only warns about an unknown parameter and then trains the default; here it is refused on both sides.
"""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from tok1d.config.fields import ConfigError
from tok1d.config.notebooks import NOTEBOOKS, GenerateParams, Params
from tok1d.config.parse import (
    assigned,
    own_parameters,
    parse,
    parse_notebook,
    unknown_name,
    with_base,
    without_defaults,
)
from tok1d.config.schema import RunConfig
from tok1d.runs import UNDER_RUNNER, Lost, Run, RunError, newest_finished, offered
from tok1d.system.files import forbidden, no_space
from tok1d.system.processes import locked

MARK = "# Parameters"  # first line of a parameters cell, and of the cell that papermill injects
TRAINING = ("train", "generate")  # these make a run; a finished one is left alone
PER_RUN = (*TRAINING, "reconstruct")  # their executed notebooks belong to a run, the others to a sweep
OVER = "over its limit of"
GRACE = 60.0  # seconds between asking a kernel to stop and killing it


def parameters(notebook: str) -> Params:
    """The notebook's validated parameters, such as `TrainParams`. Raises `ConfigError`.

    Reads every name that a parameters cell assigns, papermill's injected one included, so a misspelt name is
    refused although it is a perfectly good Python variable. Also moves to the project's folder, from which
    paths start.
    """
    from IPython import get_ipython

    names = get_ipython().user_ns
    enter_project()
    cells = [source.strip() for source in names["In"] if source.strip().startswith(MARK)]
    injected = [source for source in cells if source.split("\n")[0] == MARK]
    own = [source for source in cells if source not in injected]
    params: list[dict[str, Any]] = [{}, {}]
    for values, sources in zip(params, (own, injected), strict=True):
        for name, value in assigned(sources[-1:]).items():
            try:
                values[name] = ast.literal_eval(value)
            except ValueError:  # an expression, such as 3 * 128
                values[name] = names[name]
    found = parse_notebook(notebook, without_defaults(notebook, params[0]) | with_base(params[1]))
    return found._replace(run=run_to_open(notebook, found.run))  # type: ignore[arg-type]  # of its own class


def run_to_open(notebook: str, config: RunConfig) -> RunConfig:
    """The run, or the sweep, that a notebook reads. If none is named, and there is none of the default name,
    the newest finished one, and a line that says so.
    """
    default = RunConfig(outputs=config.outputs)
    newest = newest_finished(config.outputs)
    named = {run.path if notebook in PER_RUN else run.path.parent for run in newest}
    there = (config.folder if notebook in PER_RUN else config.folder.parent) in named
    if notebook in (*TRAINING, "explore") or config != default or there or not newest:
        return config
    run = newest[0]
    print(f"There is no {config.folder} yet: this is {run.path}{offered(config.outputs)}.")
    return default.model_copy(update={"sweep": run.path.parent.name, "run": run.name})


def enter_project() -> None:
    """From `notebooks/`, where JupyterLab starts a kernel, to the folder above it."""
    if Path.cwd().name == "notebooks" and (Path.cwd().parent / "params").is_dir():
        os.chdir("..")


def execute(
    notebook: Path, params: dict[str, Any], limit: float | None = None, grace: float | None = None
) -> Path | None:
    """Run one notebook headless with papermill; returns the executed notebook, None if there was nothing to
    do.

    Parameters are checked before a kernel starts. The executed notebook, or the part of one that failed, is
    kept beside the results; an earlier good one is only replaced by a good one. After `limit` seconds, or on
    Ctrl-C or SIGTERM, the notebook is interrupted, which lets training save a checkpoint; `grace` seconds
    later it is killed. Raises `ConfigError`, `RunError`, and `KeyboardInterrupt` after Ctrl-C.
    """
    if not notebook.is_file():
        raise ConfigError(
            f"there is no notebook {notebook}: type one of {', '.join(sorted(map(str, _shipped())))}"
        )
    run = Run(check_parameters(notebook, params).folder)
    folder = run.path if notebook.stem in PER_RUN else run.path.parent
    if notebook.stem == "reconstruct":
        run = run.finished
    if notebook.stem in TRAINING and run.done:
        if notebook.stem == "generate":
            check_samples(run, own_parameters(notebook) | params)
        print(
            f"{run.path} is finished, nothing to do: "
            f"type run=NAME for another run, or delete it to train it again"
        )
        return None

    import papermill
    from papermill.exceptions import PapermillException, PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of names that are in the configs only
    folder.mkdir(parents=True, exist_ok=True)
    running, failed = folder / f".{notebook.stem}.running.ipynb", folder / f"{notebook.stem}.failed.ipynb"
    os.environ.update({UNDER_RUNNER: "1", "TOK1D_HEADLESS": "1"})
    print(f"{notebook} -> {folder}/", flush=True)
    with (
        open(folder / f"{notebook.stem}.log", "a", encoding="utf-8") as log,
        stopping(limit, grace or GRACE) as stopped,
    ):
        if not locked(log):
            raise RunError(f"another process executes {notebook} in {folder}: wait for it, or stop it first")
        out = Tee(sys.stdout, log)
        try:
            papermill.execute_notebook(
                notebook, running, params, kernel_name="python3", progress_bar=False, cwd=str(Path.cwd()),
                stdout_file=out, stderr_file=out, autosave_cell_every=30, coalesce_streams=True,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )  # fmt: skip
        except PapermillExecutionError as error:
            keep_failed(running, failed)
            if error.ename in ("ConfigError", "RunError"):  # already one sentence that says what to do
                raise RunError(error.evalue) from None
            what = stopped[0] if stopped else f"{error.ename}: {error.evalue}"
            raise how_it_ended(what)(
                f"{notebook} stopped ({what}): see {failed}; the same command continues"
            ) from None
        except Exception as error:  # a dead kernel: out of memory, killed, or hanging and over its limit
            keep_failed(running, failed)
            if no_space(error) or forbidden(error):
                raise
            what = stopped[0] if stopped else str(error).strip().split("\n")[0]
            if not stopped and isinstance(error, TypeError | ValueError | LookupError | PapermillException):
                raise RunError(f"{notebook} cannot be executed ({type(error).__name__}: {what})") from error
            kind = how_it_ended(what) if stopped else Lost
            raise kind(
                f"{notebook} lost its kernel ({what}): see {failed}; the same command continues"
            ) from error
    executed = folder / notebook.name
    os.replace(running, executed)
    failed.unlink(missing_ok=True)
    sign(executed)
    if notebook.stem in TRAINING:
        run.promote()
    print(f"done: {executed}")
    return executed


def how_it_ended(why: str) -> type[BaseException]:
    """What `execute` raises when it was stopped: the name of a signal, `OVER` …, or what a cell said."""
    if why == signal.SIGINT.name:
        return KeyboardInterrupt
    return Lost if why == signal.SIGTERM.name else RunError


def keep_failed(running: Path, failed: Path) -> None:
    """What there is of a notebook that failed; nothing, if a full disk has left half a file."""
    with contextlib.suppress(OSError, ValueError):
        json.loads(running.read_text(encoding="utf-8"))
        os.replace(running, failed)
    running.unlink(missing_ok=True)


def check_parameters(notebook: Path, params: dict[str, Any]) -> RunConfig:
    """Refuse bad parameters for a notebook (one of your own: names that its parameters cell lacks); say where
    it runs.
    """
    defaults = own_parameters(notebook)
    if notebook.stem in NOTEBOOKS:
        found = parse_notebook(notebook.stem, defaults | params)
        if notebook.stem in TRAINING:
            Run(found.run.folder).check_params(*found)  # before it is called finished
        return run_to_open(notebook.stem, found.run)
    for name in params:
        if name not in defaults:
            raise ConfigError(unknown_name(name, defaults))
    return parse({k: v for k, v in (defaults | params).items() if k in RunConfig.model_fields}, RunConfig)[0]


def check_samples(run: Run, params: dict[str, Any]) -> None:
    """Raises `ConfigError` if the images of a finished run were sampled in another way than is asked for."""
    kept, asked = run.params, parse_notebook("generate", params)
    assert isinstance(asked, GenerateParams)
    for name, value in asked.sample.model_dump(mode="json", exclude={"sample_batch_size"}).items():
        if kept.get(name, value) != value:
            raise ConfigError(
                f"{run.path} is finished, its images are of {name}={kept[name]}, not {value}: "
                f"type run=NAME prior_from={run.path} for others of the same prior"
            )


def _shipped() -> list[Path]:
    return [path for path in Path("notebooks").glob("*.ipynb") if path.stem in NOTEBOOKS]


class Tee:
    """A text file that writes to several."""

    def __init__(self, *files: TextIO):
        self.files = files

    def write(self, text: str) -> None:
        for file in self.files:
            file.write(text)

    def flush(self) -> None:
        for file in self.files:
            file.flush()


@contextlib.contextmanager
def stopping(limit: float | None, grace: float) -> Iterator[list[str]]:
    """Stop the kernel after `limit` seconds, on Ctrl-C, or on SIGTERM: interrupted first, killed `grace`
    seconds later.

    Yields a list that holds the reason once there is one.
    """
    reasons: list[str] = []
    ended = threading.Event()

    def stop(reason: str) -> None:
        reasons.append(reason)
        _signal_kernels(signal.SIGINT)
        deadline = time.monotonic() + grace
        while not ended.wait(0.2):
            if time.monotonic() > deadline:
                _signal_kernels(signal.SIGKILL)
                return

    def on_signal(number: int, frame: object) -> None:
        if not reasons:
            threading.Thread(target=stop, args=(signal.Signals(number).name,), daemon=True).start()

    timer = threading.Timer(limit or 0, stop, args=(f"{OVER} {limit} seconds",))
    timer.daemon = True
    if limit:
        timer.start()
    old = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield reasons
    finally:
        ended.set()
        timer.cancel()
        for number, handler in old.items():
            signal.signal(number, handler)


def _signal_kernels(number: int) -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ipykernel_launcher" in " ".join(process.cmdline()):
                process.send_signal(number)


def sign(notebook: Path) -> None:
    """Trust a notebook that we executed, so that JupyterLab shows its widgets at once."""
    import nbformat
    from nbformat.sign import NotebookNotary

    with contextlib.suppress(
        Exception
    ):  # only a convenience: a home without a signature database is no reason to fail
        NotebookNotary().sign(nbformat.read(notebook, 4))
