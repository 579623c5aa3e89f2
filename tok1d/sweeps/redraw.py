"""`tok1d figures`: all figures again, of every sweep from its run folders, and the published ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tok1d.config.schema import ConfigError
from tok1d.figures.draw import redraw
from tok1d.jupyter.execute import execute
from tok1d.runs import RunError

NOTEBOOK = Path("notebooks/figures.ipynb")


def redraw_all(outputs: Path, params: dict[str, Any]) -> int:
    """Execute the figures notebook for each folder of finished runs, and draw published figures of numbers
    again from their JSON. One sweep that cannot be drawn does not keep others; returns an exit status.
    """
    sweeps = sorted({done.parents[1] for done in outputs.glob("*/*/done.json")})
    failed = 0
    for sweep in sweeps:
        try:
            execute(NOTEBOOK, params | {"outputs": str(outputs), "sweep": sweep.name})
        except (ConfigError, RunError) as error:
            print(f"tok1d: {sweep}: {error}", file=sys.stderr)
            failed += 1
    drawn = [path for path in sorted(outputs.glob("published/**/*.json")) if redraw(path)]
    print(
        f"{len(sweeps) - failed} of {len(sweeps)} sweeps and {len(drawn)} published figures are drawn again"
    )
    return int(failed > 0)
