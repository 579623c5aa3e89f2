"""Run folders: what a run is and what its files hold. The runs of a sweep are found by `tok1d.runs.find`."""

from tok1d.runs.files import RunError
from tok1d.runs.run import (
    FREE_TO_CHANGE,
    PEER_RUNS,
    UNDER_RUNNER,
    Lacking,
    Lost,
    Run,
    newest_finished,
    offered,
    writes,
)
from tok1d.system.processes import TRY_AGAIN

__all__ = [
    "FREE_TO_CHANGE", "PEER_RUNS", "TRY_AGAIN", "UNDER_RUNNER", "Lacking", "Lost", "Run", "RunError",
    "newest_finished", "offered", "writes",
]  # fmt: skip
