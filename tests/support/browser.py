"""Headless Chromium and a real JupyterLab for tests; nothing here can reach another host.

    with chromium() as browser:
        browser.page.goto(report.as_uri())
        assert not browser.outside

    with jupyter_lab(folder) as lab, chromium() as browser:
        open_in_lab(browser.page, lab, "notebook.ipynb")
        run_all(browser.page)

Missing browser or package: the test is skipped with the reason, and failed where `CI` is set.
"""

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from tok1d.system.launch import free_port

REPO = Path(__file__).resolve().parents[2]
OUTSIDE = re.compile(r"^(https?|wss?|ftp)://(?!(localhost|127\.0\.0\.1)([:/]|$))", re.IGNORECASE)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-first-run",
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]  # fmt: skip


class Browser(NamedTuple):
    page: Any  # playwright.sync_api.Page, imported late because it may be absent
    outside: list[str]  # addresses on other hosts that the page asked for; all were refused


class Lab(NamedTuple):
    url: str  # http://127.0.0.1:<port>/
    token: str


def _unavailable(reason: str) -> None:
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """A headless page with every other host blocked."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        _unavailable("no browser: install Debian's `chromium` (or google-chrome) to run this test")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("no playwright: `pip install playwright` to run this test, without its own browsers")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS, timeout=60_000)
        try:
            context = browser.new_context(
                viewport={"width": width, "height": height}, service_workers="block"
            )
            context.set_default_timeout(60_000)
            outside: list[str] = []
            context.on("request", lambda request: OUTSIDE.match(request.url) and outside.append(request.url))
            context.route(OUTSIDE, lambda route: route.abort())
            yield Browser(context.new_page(), outside)
        finally:
            browser.close()


@contextmanager
def jupyter_lab(root: Path) -> Iterator[Lab]:
    """A JupyterLab server on a free local port that serves `root`; it and its kernels are always ended.

    Config, settings and runtime files are its own: nothing of the user's is read or written.
    """
    with (
        tempfile.TemporaryDirectory(prefix="tok1d-lab-", ignore_cleanup_errors=True) as own,
        _server(Path(root).resolve(), Path(own)) as lab,
    ):
        yield lab


@contextmanager
def _server(root: Path, own: Path) -> Iterator[Lab]:
    settings = own / "settings" / "@jupyterlab"
    for name, values in {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    folders = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }  # fmt: skip
    env = os.environ | {key: str(own / name) for key, name in folders.items()}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    for name in ("TOK1D_HEADLESS", "PAPERMILL_OUTPUT_PATH"):
        env.pop(name, None)  # here somebody watches
    token, port = "tok1d-test", free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={root}",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
        "--LabApp.extension_manager=readonly", "--ServerApp.terminals_enabled=False",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--ServerApp.shutdown_no_activity_timeout=900",  # should even this test be killed
    ]  # fmt: skip
    log = own / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=env, cwd=root, stdout=out, stderr=out, start_new_session=True)
    try:
        _wait_for_port(port, server, log)
        yield Lab(f"http://127.0.0.1:{port}/", token)
    finally:
        _end(server)


def _wait_for_port(port: int, server: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def _end(server: subprocess.Popen) -> None:
    """SIGTERM lets the server end its kernels; SIGKILL follows if it does not."""
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        if server.poll() is None:
            os.killpg(server.pid, number)
            try:
                server.wait(seconds)
            except subprocess.TimeoutExpired:
                continue


def accessibility_faults(page, within: str = "html") -> list[str]:
    """What axe-core finds serious or critical on the page, or in a part of it, a line each."""
    if (found := importlib.util.find_spec("axe_core_python")) is None:
        _unavailable("no axe-core: `pip install axe-core-python` to run this test")
    (folder,) = found.submodule_search_locations
    page.evaluate((Path(folder) / "axe.min.js").read_text(encoding="utf-8"))
    return [
        f"{fault['id']}: {fault['help']}: {node['target']}"
        for fault in page.evaluate("within => axe.run(within)", within)["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


# ------------------------------------------------------------------------------------------- in JupyterLab

_KERNEL = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"


def open_in_lab(page, lab: Lab, notebook: str) -> None:
    """Open `notebook` (a path below the server's root) and wait until its kernel is idle."""
    page.goto(f"{lab.url}lab/tree/{quote(notebook)}?reset&token={lab.token}")
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell")
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    wait_idle(page)


def wait_idle(page, seconds: float = 60) -> None:
    page.wait_for_function(f"{_KERNEL}?.status === 'idle'", timeout=1000 * seconds)


def run_all(page, seconds: float = 120) -> None:
    """Run every cell of the open notebook; returns when the last is done, fails the test when one raised."""
    page.evaluate(
        "() => { window.tok1dRan = false; window.jupyterapp.commands.execute('notebook:run-all-cells')"
        ".finally(() => { window.tok1dRan = true }) }"
    )
    page.wait_for_function("window.tok1dRan", timeout=1000 * seconds)
    wait_idle(page, seconds)
    errors = page.evaluate(
        "() => [...window.jupyterapp.shell.currentWidget.model.cells]"
        ".flatMap(cell => cell.toJSON().outputs ?? []).filter(output => output.output_type === 'error')"
        ".map(output => `${output.ename}: ${output.evalue}`)"
    )
    if errors:
        pytest.fail(f"a cell failed in JupyterLab: {errors[0]}")


# ----------------------------------------------------------------------------------------------- pictures


def pixels(locator) -> np.ndarray:
    """A screenshot of one element, uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"))


def differ(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two pictures in gray levels; unequal sizes count as wholly different."""
    return float(np.abs(a.astype(float) - b).mean()) if a.shape == b.shape else 255.0
