"""A really full disk, for tests: a small file system, which only those see who enter its namespace."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class Disk(NamedTuple):
    enter: list[str]  # a command behind these words sees it at `inside`
    inside: Path
    outside: Path  # the same folder for everybody else

    def fill(self) -> Path:
        """Take all that is left; returns the file to delete for room."""
        filler = self.outside / "filler"
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        return filler


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mounted over `folder`, as root or in a user namespace; where neither is allowed the test is skipped."""
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={megabytes}m none '{folder}' && echo mounted && exec sleep 1000"
    said = []
    for kind in (["--mount"], ["--map-root-user", "--mount"]):
        holder = subprocess.Popen(
            ["unshare", *kind, "sh", "-c", mount], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            said.append(holder.stdout.readline().strip())
            if said[-1] == "mounted":
                user = ["--user", "--preserve-credentials"] * (len(kind) - 1)
                enter = ["nsenter", "--target", str(holder.pid), *user, "--mount", f"--wdns={Path.cwd()}"]
                yield Disk(enter, folder, Path(f"/proc/{holder.pid}/root{folder}"))
                return
        finally:
            holder.kill()
            holder.wait()
    pytest.skip(f"a file system cannot be mounted here, not even in a namespace: {said}")
