"""Where this runs, and where a result came from: does anybody watch, the code, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


def headless() -> bool:
    """True when nobody watches: no Jupyter kernel, a papermill run, or `TOK1D_HEADLESS` set (but not to 0).

    papermill is known by `PAPERMILL_OUTPUT_PATH`, in the environment or (`--inject-paths`) in the notebook.
    `TOK1D_HEADLESS=0` says that somebody does watch.
    """
    if "TOK1D_HEADLESS" in os.environ:
        return os.environ["TOK1D_HEADLESS"] not in ("", "0")
    shell = kernel_shell()
    return shell is None or "PAPERMILL_OUTPUT_PATH" in os.environ or "PAPERMILL_OUTPUT_PATH" in shell.user_ns


def kernel_shell():
    """The IPython shell of a Jupyter kernel; None in a script, in pytest and in terminal IPython."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    return shell if hasattr(shell, "kernel") else None


VERSIONS = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "accelerate",
    "vector-quantize-pytorch",
    "torchmetrics",
    "numpy",
)


def describe_environment() -> dict[str, Any]:
    """The code, the versions and the hardware that a result came from."""
    import torch  # here, so that 'tok1d run' answers at once for a finished run

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "git": git_commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONS},
        "hardware": {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu},
        "platform": f"{platform.system()} {platform.machine()}",
    }


def made_with(device: Any) -> dict[str, str | None]:
    """The code and the processor of a measurement, in short."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"tok1d": git_commit(), "torch": torch.__version__, "device": name}


def git_commit() -> str | None:
    """The commit of the code, with `+changes` when the work tree differs from it. None if the code is in no
    repository of its own: one around it, such as that of a home folder, says nothing of it.
    """
    try:
        own = Path(_git("rev-parse", "--show-toplevel")).resolve() == PACKAGE.parent
        if not own or not _git("ls-files", "--", str(PACKAGE / "__init__.py")):
            return None
        return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


PACKAGE = Path(__file__).resolve().parents[1]


def _git(*words: str) -> str:
    """What git says of the folder of the code, whatever GIT_DIR is in a hook."""
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
    env = {name: value for name, value in os.environ.items() if name not in elsewhere}
    git = ["git", "-C", str(PACKAGE), *words]
    said = subprocess.run(git, env=env, capture_output=True, text=True, errors="replace", check=True)
    return said.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
