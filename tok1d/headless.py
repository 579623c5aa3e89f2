"""Is anybody watching? Widgets, progress bars and live curves ask here."""

from __future__ import annotations

import os


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
