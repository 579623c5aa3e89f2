"""The tokenizer in outputs/published, which `make lab` opens: as good as its numbers say, and small."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from workbench import REPO

from tok1d.config.schema import DataConfig
from tok1d.data.dataset import load_data, to_float
from tok1d.evaluation.evaluate import reconstruct
from tok1d.evaluation.metrics.images import psnr
from tok1d.evaluation.runs import load_tokenizer
from tok1d.evaluation.table import read_table
from tok1d.runs import Run

RUN = Run(REPO / "outputs/published/toy-roads-64px")


def test_it_is_small_and_complete():
    file = RUN / "model" / "model.safetensors"
    assert file.stat().st_size <= 6e6
    with safe_open(file, "pt") as weights:
        kinds = {weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118
    assert kinds <= {torch.float16, torch.int64} and RUN.done
    assert RUN.manifest["data"]["train"] and RUN.evaluation["card"]["images"] == 200


def test_its_numbers_beat_the_linear_code_and_are_met_again(tmp_path):
    rows = {row["num_tokens"]: row["psnr"] for row in RUN.evaluation["results"]}
    line = {row["num_tokens"]: row["psnr"] for row in RUN.evaluation["linear_code"]}
    assert all(rows[count] > line[count] for count in rows) and max(rows.values()) >= 29
    assert all(rows[count] >= line[count] + 1.0 for count in (16, 32, 64))

    images = load_data(DataConfig(toy_images=1, toy_val_images=200), 64, tmp_path)[1]
    few = list(range(0, 200, 8))
    originals = images.center_crops(few)
    for count, again in reconstruct(load_tokenizer(RUN), originals, (1, 8, 64)).items():
        kept = read_table(RUN / "eval.parquet", count, ["psnr"]).set_index("image")["psnr"][few]
        assert psnr(to_float(again), to_float(originals)).numpy() == pytest.approx(np.array(kept), abs=0.05)
