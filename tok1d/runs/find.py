"""The runs of a sweep that are compared, drawn or reported: by name, or all that are finished.

runs = find_runs("outputs/toy")                     # every finished tokenizer
runs = find_runs("outputs/toy", ("vq-s0", "peer:titok-l32"), eval_data="photos/val")
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tok1d.config.peers import is_peer, peer_run
from tok1d.runs import PEER_RUNS, Run, RunError, offered


def runs_in(folder: str | Path) -> list[Run]:
    """A run folder itself, or the runs, finished or not, in that of a sweep."""
    found = [] if (Path(folder) / "params.yaml").exists() else sorted(Path(folder).glob("*/params.yaml"))
    return [Run(path.parent) for path in found] or [Run(folder)]


def find_runs(
    folder: str | Path, names: tuple[str, ...] = (), eval_data: str = "", needed: bool = True
) -> list[Run]:
    """The named runs (`peer:NAME` is one of a peer), or every finished tokenizer below `folder`, by name; as
    they were evaluated on `eval_data`, or on what the sweep in that folder names. Raises `RunError` if one
    was not, or there is none and it is `needed`.
    """
    if names:
        runs = [named_run(name, Path(folder)) for name in names]
    else:
        runs = finished_in(folder, "tokenizer", "peer")
    if not runs and needed:
        raise RunError(
            f"there is no finished run in {folder}: "
            f"train one with 'tok1d run notebooks/train.ipynb'{offered(Path(folder).parent)}"
        )
    return [run.finished.on(eval_data or eval_data_of(folder)) for run in runs]


def find_priors(folder: str | Path) -> list[Run]:
    """The finished runs of `generate.ipynb` below `folder`, by name."""
    return finished_in(folder, "prior")


def finished_in(folder: str | Path, *kinds: str) -> list[Run]:
    """The finished runs of these kinds below `folder`, by name."""
    runs = [Run(done.parent) for done in sorted(Path(folder).glob("*/done.json"))]
    return [run for run in runs if run.kind in kinds]


def named_run(name: str, folder: Path) -> Run:
    """A run by its path, by its name in the `folder` of a sweep, or a peer's. Raises `RunError`."""
    if not is_peer(name):
        return Run(name if Path(name).exists() else folder / name)
    run = Run(folder.parent / PEER_RUNS / peer_run(name))
    if not run.done:
        raise RunError(f"{name} was not evaluated: type 'tok1d evaluate {name} --data FOLDER'")
    return run


def eval_data_of(sweep: str | Path) -> str:
    """The images that a sweep's file names to evaluate its runs on; empty: their own validation images."""
    with suppress(OSError, ValueError):
        return json.loads((Path(sweep) / "sweep.json").read_text(encoding="utf-8")).get("eval_data") or ""
    return ""
