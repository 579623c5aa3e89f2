"""Ctrl-C, and the interrupt of a kernel: one line wherever it comes, no stack of calls."""

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from evaluating import finished_run
from jupyter_client.manager import start_new_kernel
from nbformat.v4 import new_code_cell, new_notebook
from sweeping import until
from workbench import ENV, REPO

IMPORTS = """
import time, torch
from pathlib import Path
from tok1d.config.parse import parse_train
from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data
from tok1d.evaluation.evaluate import reconstruct
from tok1d.models.tokenizer import Tokenizer
tokenizer = Tokenizer(parse_train(dict(image_size=16, num_latent_tokens=4)).tokenizer)
black = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
"""
LONG = {
    "decoding": "load_data(DataConfig(toy_images=200000), 64, Path('cache'))",
    "reconstructing": "reconstruct(tokenizer, black.expand(10**6, 3, 16, 16), (1, 4))",
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    env = ENV | {"PYTHONPATH": str(REPO), "TOK1D_HEADLESS": "0"}
    folder = str(tmp_path_factory.mktemp("kernel"))
    manager, client = start_new_kernel(kernel_name="python3", env=env, cwd=folder, startup_timeout=120)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def shown(kernel, code: str, interrupt_after: float | None = None) -> tuple[list[str], str]:
    """The traceback that a cell ends with, and what it writes to stderr."""
    manager, client = kernel
    request = client.execute(f"print('begun', flush=True)\n{code}", stop_on_error=False)
    traceback, errors, due, deadline = [], "", None, time.monotonic() + 120
    while time.monotonic() < deadline:
        if due and time.monotonic() > due:
            manager.interrupt_kernel()
            due = None
        try:
            message = client.get_iopub_msg(timeout=0.1)
        except queue.Empty:
            continue
        content = message["content"]
        if message["parent_header"].get("msg_id") != request:
            continue
        if content.get("text") == "begun\n" and interrupt_after is not None:
            due = time.monotonic() + interrupt_after
        elif message["msg_type"] == "error":
            traceback = content["traceback"]
        elif content.get("name") == "stderr":
            errors += content["text"]
        elif content.get("execution_state") == "idle":
            return traceback, errors
    raise AssertionError("it did not stop")


def test_in_a_kernel_it_is_one_line_and_the_kernel_goes_on(kernel):
    assert shown(kernel, IMPORTS) == ([], "")
    for what, code in LONG.items():
        assert shown(kernel, code, 1.5) == (["stopped; Run All continues"], ""), what
    assert shown(kernel, "assert 1 + 1 == 2") == ([], "")
    own, _ = shown(kernel, "time.sleep(100)", 0.5)  # has nothing to do with tok1d: as ever
    assert len(own) > 1 and "KeyboardInterrupt" in own[-1]


def interrupted(words: list[str], folder: Path, begun: str, **env: str) -> list[str]:
    """What `tok1d` says on stderr if Ctrl-C comes when a file like `begun` is there; all processes of the
    group hear it, as in a terminal.
    """
    command = [sys.executable, "-c", "import sys, tok1d; sys.exit(tok1d.main())", *words]
    env = ENV | {"PYTHONPATH": str(REPO)} | env
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # `make test &` ignores it
    )
    try:
        until(lambda: any(folder.glob(begun)) or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, said
    return said.strip().splitlines()


def test_of_a_command_it_is_one_line_and_status_130(tmp_path):
    """While it is loaded, while it decodes, and while it executes a notebook, which is kept."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "typer.py").write_text("open('loading', 'w'); import time; time.sleep(60)")
    path = f"{tmp_path}/slow:{REPO}"
    said = interrupted(["report", "."], tmp_path, "loading", PYTHONPATH=path)
    assert said == ["tok1d: stopped; the same command continues"]

    finished_run(tmp_path / "outputs", "a")
    words = ["evaluate", "outputs/runs/a", "--data", "toy-roads", "-p", "toy_val_images=200000"]
    *bar, sentence = interrupted(
        words, tmp_path, "outputs/.cache/.*.tmp/pixels.u8"
    )  # it may come before the bar
    assert all(line.rstrip().endswith("of 200,000 images, stopped") for line in bar) and sentence == said[0]
    assert not list(tmp_path.glob("outputs/.cache/.*.tmp"))

    cell = new_code_cell("open('begun', 'w'); import time; time.sleep(60)")
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "own.ipynb")
    (sentence,) = interrupted(["run", "own.ipynb"], tmp_path, "begun")
    assert sentence.startswith("tok1d: own.ipynb stopped (SIGINT): see ")
    assert sentence.endswith("own.failed.ipynb; the same command continues")
