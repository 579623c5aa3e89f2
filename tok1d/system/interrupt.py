"""Ctrl-C, and the interrupt of a kernel: what is shown of one is a sentence, not the stack of calls."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from tok1d.system.environment import PACKAGE, kernel_shell

SAID = "stopped; the same command continues"  # of a command


def calm_interrupts() -> None:
    """In a Jupyter kernel, show an interrupt of what tok1d does as "stopped; Run All continues".

    One of code that has nothing to do with tok1d is shown as ever, and a handler that somebody else has set
    stays.
    """
    shell = kernel_shell()
    if shell is not None and not shell.custom_exceptions:
        shell.set_custom_exc((KeyboardInterrupt,), _show)


def _show(shell: Any, kind: type, error: Any, stack: TracebackType, tb_offset: int | None = None) -> None:
    if ours(stack) and not hasattr(error, "_render_traceback_"):
        error._render_traceback_ = lambda: ["stopped; Run All continues"]
    shell.showtraceback((kind, error, stack), tb_offset=tb_offset, running_compiled_code=True)


def ours(stack: TracebackType) -> bool:
    """Whether a function of this package is among the calls."""
    return any(PACKAGE in Path(call.filename).parents for call in traceback.extract_tb(stack))
