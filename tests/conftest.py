import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from workbench import CI, REPO

import tok1d.jupyter  # noqa: F401  # before anything of Jupyter's, which starts a second sooner then
from tok1d.system.files import replacing
from tok1d.system.processes import locked

pytest_plugins = ["figure_runs"]  # fixtures of several folders

SHARED = REPO.parent / "shared"


@pytest.fixture(scope="session")
def real_weights(tmp_path_factory) -> Path:
    """Real pretrained files: `.weights`, or fetched where tests run in CI, once for all workers."""
    folder, tool = REPO / ".weights", SHARED / "tools" / "get_weights.py"
    if folder.exists():
        return folder
    if not CI:
        pytest.skip(f"there are no real weights: type python {tool} .weights")
    ours = tmp_path_factory.getbasetemp()
    folder = (ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours) / "weights"
    with open(f"{folder}.lock", "w") as handle:
        assert locked(handle, patience=300)
        if not folder.exists():
            with replacing(folder) as fetched:
                subprocess.run([sys.executable, str(tool), str(fetched)], check=True)
    return folder


@pytest.fixture
def frames() -> list[Image.Image]:
    """Real dashcam frames."""
    found = sorted((SHARED / "data" / "indian-roads" / "val").rglob("*.jpg"))[::50]
    if not found and not CI:
        pytest.skip("there are no real frames beside the repository: ../shared/data/indian-roads/val")
    assert found
    return [Image.open(path).convert("RGB") for path in found]


@pytest.fixture
def photos(tmp_path):
    """`photos(3)` writes a.png, b.png, c.png of random pixels and returns their folder."""

    def write(count: int, folder: str = "photos", size: tuple[int, int] = (40, 30), start: int = 0) -> Path:
        where = tmp_path / folder
        where.mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(where / f"{chr(97 + i) if i < 26 else f'z{i:03}'}.png")
        return where

    return write


@pytest.fixture
def plain(tmp_path):
    """`plain(7)`: seven 24 x 16 images, number i all of gray value i."""

    def write(count: int) -> Path:
        (tmp_path / "plain").mkdir()
        for i in range(count):
            Image.new("RGB", (24, 16), (i, i, i)).save(tmp_path / f"plain/{i:03}.png")
        return tmp_path / "plain"

    return write


# Which files `pytest -n 4 --dist loadfile` starts with, so that no worker has a long one left at the end and
# those that wait are beside those that compute. The tests of a file share their runs, in one worker.
SLOW = [
    "test_processes", "test_sweep", "test_notebooks", "test_gpu_results", "test_sweep_disk", "test_priors",
    "test_sweep_of_priors", "test_doctor", "test_sweep_slurm", "test_train", "test_slurm", "test_explorer",
    "test_pretrained", "test_sweep_after_run", "test_killed", "test_hub_data", "test_peers_notebook",
    "test_features_degraded", "test_set_metrics",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))
