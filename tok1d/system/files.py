"""What the operating system is asked for: files that are never half written, locks that end with their
process, processes that end with the one that started them.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# ---- files and folders that are never half written ----


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write a file or a folder to; it becomes `path`, on disk and whole, when the block
    ends without an error. What killed processes left beside it is removed first.
    """
    if path.is_symlink() and path.is_dir():
        path = path.resolve()  # a folder that somebody keeps elsewhere
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, path.name)
    temporary = temporary_name(path)
    remove(temporary)
    try:
        yield temporary
        for file in [temporary] if temporary.is_file() else [f for f in temporary.rglob("*") if f.is_file()]:
            with open(file, "rb") as written:
                os.fsync(written.fileno())
        _put(temporary, path)
    finally:
        remove(temporary)


def temporary_name(path: Path) -> Path:
    """A name beside it, which `remove_abandoned` knows."""
    return path.with_name(f".{path.name}{_mine()}.tmp")


def _put(temporary: Path, path: Path) -> None:
    """Rename over what is there. Two folders change names; where the system cannot do that in one step, the
    old one is put aside for a moment, and put back by the next writer should this one be killed right then.
    """
    if not (path.is_dir() and temporary.is_dir()):
        os.replace(temporary, path)
    elif not exchange(temporary, path):
        aside = temporary.with_suffix(".old")
        os.rename(path, aside)
        os.rename(temporary, path)
        remove(aside)


def exchange(one: Path, other: Path) -> bool:
    """Give each the other's name, in one step; False where the system, or the file system, cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0


def remove(path: Path) -> None:
    """A file, a link, or a folder with all that is in it; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


DAY = 24 * 3600.0  # seconds
TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8})-(\d+)\.(tmp|old)", re.DOTALL)


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Remove temporary files and folders whose process is gone. Of processes of other machines, which a
    process number says nothing of, those that nobody has written to for a day; so too temporary files of
    `name` that an earlier tok1d left.
    """
    earlier = re.compile(rf"\.{re.escape(name)}\.\d+\.tmp", re.DOTALL)
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if found := TEMPORARY.fullmatch(entry.name):
                gone = not _alive(int(found[3])) if found[2] == machine() else _untouched(Path(entry.path))
            else:
                gone = bool(name and earlier.fullmatch(entry.name)) and _untouched(Path(entry.path))
            if gone:
                with suppress(OSError):
                    if found and found[4] == "old" and not (folder / found[1]).exists():
                        os.rename(entry.path, folder / found[1])
                    remove(Path(entry.path))


def _mine() -> str:
    return f".{machine()}-{os.getpid()}"


@functools.cache
def machine() -> str:
    """Eight letters that are the same for processes that know each other by number: those of one boot of one
    machine, and there of one container.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8") + os.readlink(
            "/proc/self/ns/pid"
        )
    except OSError:
        boot = socket.gethostname()
    return hashlib.sha256(boot.encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _untouched(path: Path) -> bool:
    """Whether nobody has written to it for a day."""
    times = [each.lstat().st_mtime for each in (path, *path.rglob("*"))]
    return max(times) < time.time() - DAY


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in the system's temporary one, gone in the end; what killed processes left there goes too."""
    remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=".tok1d-", suffix=f"{_mine()}.tmp") as folder:
        yield Path(folder)


# ---- what cannot be written, and locks ----


def no_space(error: BaseException) -> bool:
    """Whether it says that the disk is full, or a quota used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def forbidden(error: BaseException) -> bool:
    """Whether it says that one may not read or write there, or that nobody may write."""
    return isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def is_full(folder: Path) -> bool:
    """Whether not even a megabyte can be written there."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**20))
    except OSError as error:
        return no_space(error)
    return False


def remedy(error: BaseException, folder: Path) -> str:
    """Why `folder` cannot be written, and what to do: "(no space left on device): make room there"."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno):
        cause = cause.__cause__ or cause.__context__
    if cause is None:  # torch speaks of a full disk as a RuntimeError
        words = str(error).strip().split("\n")[0][:200] or type(error).__name__
        return "(is the disk full?): make room there" if is_full(folder) else f"({words}): mend that"
    assert isinstance(cause, OSError) and cause.errno
    said = f"({os.strerror(cause.errno).lower()})"
    if no_space(cause):
        return f"{said}: make room there"
    if cause.errno == errno.EROFS:
        return f"{said}: mount it for writing, or type outputs=FOLDER"
    if forbidden(cause):
        return f"{said}: give yourself the right to write there, or type outputs=FOLDER"
    return f"{said}: mend that, or type outputs=FOLDER"
