"""How far a long loop is, and how long it will still take: one line, renewed in its place."""

from __future__ import annotations

import html
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tok1d.system.environment import headless, kernel_shell

Item = TypeVar("Item")
WATCHED, UNWATCHED = 0.5, 30.0  # seconds between two renewals
WINDOW = 30  # renewals that the speed is taken over
SURE = 2.0  # seconds from the first one done until a time is said: what comes first is slower than the rest


class Progress:
    """A bar in a Jupyter kernel, a text elsewhere.

        with Progress("training", 300, done=68) as progress:
            progress.update(69)

    In a kernel it is one display, which nothing that is shown later cuts in two. Where nobody watches, the
    text is written to the log now and then. `total` 0: nobody knows. `quiet`: nothing is shown at all, as in
    all processes but one.
    """

    def __init__(self, what: str, total: int, done: int = 0, unit: str = "steps", quiet: bool = False):
        self.what, self.total, self.done, self.unit, self.quiet = what, total, done, unit, quiet
        self.watched = not headless() or (kernel_shell() is None and sys.stderr.isatty())
        self.every = WATCHED if self.watched else UNWATCHED
        self.marks: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self.shown, self.began = time.monotonic(), done
        self.stopped, self.written = False, False
        self.handle: Any = None

    def __enter__(self) -> Progress:
        if self.watched:
            self.show()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.stopped = kind is not None
        self.show()
        if self.written:
            self.write("\n")

    def update(self, done: int) -> None:
        """So many are done."""
        self.done, now = done, time.monotonic()
        if not self.marks:
            self.marks.append((now, done))
        elif now - self.shown >= self.every:
            self.marks.append((now, done))
            self.show()

    def text(self) -> str:
        """`training: 68 of 300 steps, 2.1 steps/s, 1:50 left`."""
        said = f"{self.what}: {self.done:,} of {self.total:,} {self.unit}"
        if not self.total:
            return f"{self.what}: {self.done:,} {self.unit}"
        if self.stopped:
            return f"{said}, stopped"
        if self.done >= self.total or len(self.marks) < 2:
            return said
        seconds, steps = (b - a for a, b in zip(self.marks[0], self.marks[-1], strict=True))
        if seconds < SURE or steps <= 0:
            return said
        speed = steps / seconds
        per = f"{speed:,.1f} {self.unit}/s" if speed >= 1 else f"{1 / speed:,.1f} s each"
        return f"{said}, {per}, {clock((self.total - self.done) / speed)} left"

    def show(self) -> None:
        self.shown = time.monotonic()
        if self.quiet:
            return
        if kernel_shell() is None or headless():
            self.write(f"\r{self.text():<70}")
            return
        from IPython.display import HTML, display

        share = 100 * self.done / max(1, self.total)
        bar = f'<progress max="100" value="{share:.1f}" style="width:18em;vertical-align:middle"></progress>'
        element = HTML(f"<div>{bar if self.total else ''} {html.escape(self.text())}</div>")
        if self.handle is None:
            self.handle = display(element, display_id=True)
        else:
            self.handle.update(element)

    def write(self, text: str) -> None:
        out = sys.stderr if kernel_shell() is None else sys.stdout  # a notebook shows stderr as an error
        print(text, end="", file=out, flush=True)
        self.written = True


def counted(items: Iterable[Item], what: str, total: int, unit: str) -> Iterator[Item]:
    """The items, with a `Progress` over them."""
    with Progress(what, total, unit=unit) as progress:
        for done, item in enumerate(items, 1):
            yield item
            progress.update(done)


def clock(seconds: float) -> str:
    """3723 -> 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
