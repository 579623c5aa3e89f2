"""The sweep's benchmark compares the same runs, and sees it when two share a device."""

import json

import pytest

from benchmarks.sweep import SWEEP, run_command, used, write_sweep
from tok1d.config.parse import read_params
from tok1d.sweeps.plan import read_plan


def test_its_sweep_has_the_runs_that_are_made_directly(tmp_path):
    cells = read_plan(SWEEP).cells
    again = read_plan(write_sweep(tmp_path, cells)).cells
    assert len(cells) == 12 and [c.name for c in again] == [c.name for c in cells]
    for cell, other in zip(cells, again, strict=True):
        assert cell.configs[1:] == other.configs[1:]  # the first says where
        direct = read_params(run_command(tmp_path / "direct", cell)[-1])
        assert direct == cell.params | {"outputs": str(tmp_path / "direct")}


def test_two_runs_on_one_device_at_a_time_are_found(tmp_path):
    cells = read_plan(SWEEP).cells[:3]

    def ran(*spans) -> dict:
        for cell, (gpu, started, ended) in zip(cells, spans, strict=True):
            (tmp_path / cell.name).mkdir(exist_ok=True)
            status = {"gpu": gpu, "started": started, "ended": ended}
            (tmp_path / cell.name / "status.json").write_text(json.dumps(status))
        return used(tmp_path, cells)

    assert ran(("0", 0, 5), ("1", 1, 3), ("0", 5, 6)) == {"0": 2, "1": 1}
    with pytest.raises(SystemExit, match="two runs had device 0"):
        ran(("0", 0, 5), ("1", 1, 3), ("0", 4, 6))
