"""tok1d: a notebook-centric research workbench for 1D image tokenization.

from tok1d import Run, Tokenizer, evaluate, train     # imported when first used: torch takes seconds
"""

import atexit
import gc
import importlib
import os
import sys
from typing import Any

__version__ = "0.1.0"

# Before torch is imported: its OpenMP threads wait for each other by spinning, for longer than pays when
# another program wants a core too. Training in a notebook kernel on two cores, one of them busy: 0.4 steps/s
# by default, 1.1 at 30,000 turns, 3.8 at 1,000; with both cores idle the default is up to a fifth faster than
# 1,000.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# torch, timm, pandas and matplotlib leave 800,000 objects. Python looks through them for garbage again and
# again while they are imported, and twice when it ends: 2.1 of the 5.5 s of a process that does nothing else.
# So the first million objects is not looked through, and at the end none.
_USUAL = gc.get_threshold()


def _collect_as_usual(phase: str, info: dict[str, int]) -> None:
    gc.callbacks.remove(_collect_as_usual)
    gc.set_threshold(*_USUAL)


if "torch" not in sys.modules and _USUAL[0]:
    gc.set_threshold(1_000_000, *_USUAL[1:])
    gc.callbacks.append(_collect_as_usual)
atexit.register(gc.freeze)

if "IPython" in sys.modules:  # in a terminal the command line says it
    from tok1d.system.interrupt import calm_interrupts

    calm_interrupts()

_PUBLIC = {
    "Generator": "tok1d.generation.generator", "Run": "tok1d.runs",
    "SampleConfig": "tok1d.config.generation", "TokenSlider": "tok1d.jupyter.slider",
    "Tokenizer": "tok1d.models.tokenizer", "evaluate": "tok1d.evaluation.evaluate",
    "open_photo": "tok1d.explore.photo", "reconstruct": "tok1d.evaluation.evaluate",
    "train": "tok1d.training.train",
}  # fmt: skip
__all__ = [
    "Generator", "Run", "SampleConfig", "TokenSlider", "Tokenizer", "evaluate", "open_photo", "reconstruct",
    "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"tok1d has no {name}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def main() -> int:
    """The command line, `tok1d.cli.main`; Ctrl-C while it is still being loaded is one line too. Returns the
    exit status.
    """
    from tok1d.system.interrupt import SAID

    try:
        from tok1d.cli import main as command

        return command()
    except KeyboardInterrupt:
        print(f"tok1d: {SAID}", file=sys.stderr)
        return 130
