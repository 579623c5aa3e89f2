"""Locks that end with their process, processes that end with others, and signals that ask for an end."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def locked(handle: IO, patience: float = 0) -> bool:
    """Lock an open file, for as long as it is open here or in a process that inherits it; False if another
    has it for more than `patience` seconds. Where there are no locks (Lustre, some NFS), a sentence says so,
    and it is as if nobody else had it.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (BlockingIOError, PermissionError):  # some NFS says EACCES
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)
        except OSError as error:
            folder = Path(handle.name).parent
            if folder not in _without_locks:
                why = os.strerror(error.errno or 0).lower()
                print(
                    f"{folder} is on a disk without locks ({why}): going on without, so start nothing twice",
                    file=sys.stderr,
                    flush=True,
                )
            _without_locks.add(folder)
            return True


_without_locks: set[Path] = set()  # of which it was said

# ---- processes that end with others ----

FOLLOWS = "TOK1D_FOLLOWS"  # set: end when standard input is closed
TRY_AGAIN = 75  # exit status (sysexits' EX_TEMPFAIL): nothing is wrong, the same command continues
GRACE = 120.0  # seconds for a step and a checkpoint, before a process that was asked to stop is killed


def end_with_stdin() -> None:
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


def end_with_parent(pid: int) -> None:
    """End this process, at once, when process `pid`, which started it, has ended."""
    threading.Thread(target=_until_orphaned, args=(pid,), daemon=True).start()


def _until_orphaned(pid: int) -> None:
    while os.getppid() == pid:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


# ---- asked to end ----


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Turn Ctrl-C, a kernel interrupt and SIGTERM into a list that is no longer empty: the step ends, then we
    stop.
    """
    received: list[int] = []
    try:
        old = {
            s: signal.signal(s, lambda number, frame: received.append(number))
            for s in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:  # not in the main thread, where signals are somebody else's
        old = {}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
