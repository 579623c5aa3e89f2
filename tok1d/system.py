"""What the operating system is asked for: files that are never half written, locks that end with their
process, processes that end with the one that started them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; it becomes `path`, on disk and whole, when the block ends without an
    error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_file():
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def no_space(error: BaseException) -> bool:
    """Whether it says that the disk is full, or a quota used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def locked(handle: IO, patience: float = 0) -> bool:
    """Lock an open file, for as long as it is open here or in a process that inherits it; False if another
    has it for more than `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)


FOLLOWS = "TOK1D_FOLLOWS"  # set: end when standard input is closed
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
