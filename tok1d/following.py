"""Processes that end with the one that started them, however that ended."""

from __future__ import annotations

import os
import signal
import threading
import time

FOLLOWS = "TOK1D_FOLLOWS"  # set: end when standard input is closed
GRACE = 120.0  # seconds for a step and a checkpoint, before a process that was asked to stop is killed


def follow() -> None:
    """If `FOLLOWS` is set, send this process SIGTERM once its standard input is closed, so that it can write
    a checkpoint, and SIGKILL `GRACE` seconds later.
    """
    if os.environ.pop(FOLLOWS, None):
        threading.Thread(target=_until_closed, daemon=True).start()


def _until_closed() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def end_with(pid: int) -> None:
    """End this process, at once, when process `pid`, which started it, has ended."""
    threading.Thread(target=_until_orphaned, args=(pid,), daemon=True).start()


def _until_orphaned(pid: int) -> None:
    while os.getppid() == pid:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
