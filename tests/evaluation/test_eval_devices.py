"""Evaluations on several devices: the same numbers in the same order, all devices at work."""

import threading
import time

import pandas as pd
import pytest
import torch
from evaluating import Means, build, roads

from tok1d.config.schema import EvalConfig
from tok1d.evaluation.evaluate import evaluate
from tok1d.evaluation.measured import ForeignTokenizer, as_measurable
from tok1d.evaluation.workers import devices_for, in_order

TWO = ("cpu", "cpu")


def without_speeds(evaluation: dict) -> dict:
    rows = [{k: v for k, v in row.items() if "per_s" not in k} for row in evaluation["results"]]
    return evaluation | {"results": rows}


@pytest.mark.parametrize("peer", [False, True])
def test_two_devices_give_the_numbers_of_one(peer, tmp_path):
    found, tables = [], []
    for i, devices in enumerate(((), TWO)):
        tokenizer, path = Means() if peer else build(), tmp_path / f"{i}.parquet"
        config = EvalConfig(eval_batch_size=3, resamples=50)
        found.append(evaluate(tokenizer, roads(17), config, table=path, devices=devices))
        tables.append(pd.read_parquet(path))
        assert all(row["decode_images_per_s"] > 0 for row in found[-1]["results"])
    assert without_speeds(found[0]) == without_speeds(found[1])
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_features_of_two_devices_are_those_of_one(real_weights, tmp_path):
    config = EvalConfig(
        metrics="rfid,lpips", token_counts="8", eval_batch_size=1, resamples=20,
        inception_checkpoint=str(real_weights / "inception_fid.pth"),
        lpips_checkpoint=str(real_weights / "vgg16_features_keras.pth"),
    )  # fmt: skip
    found, features = [], []
    for name, devices in (("one", ()), ("two", TWO)):
        cache = tmp_path / name
        for reference in (None, roads(2, start=9)):
            evaluation = evaluate(
                build(), roads(3), config, reference=reference, cache=cache, devices=devices
            )
            found.append(without_speeds(evaluation))
        features.append({file.name: file.read_bytes() for file in cache.glob("*.f32")})
    assert found[:2] == found[2:]
    assert features[0] == features[1] and len(features[0]) == 2  # of the originals and of the reference


def test_workers_work_at_once_and_their_results_are_in_order():
    both = threading.Barrier(2, timeout=20)  # passes only if two wait for each other
    by = []

    def worker(name: str, seconds: float):
        def work(item: int) -> int:
            if item < 2:
                both.wait()
            time.sleep(seconds)
            by.append(name)
            return item * item

        return work

    found = list(in_order([worker("slow", 0.2), worker("quick", 0.001)], range(12)))
    assert found == [i * i for i in range(12)]
    assert by.count("quick") > by.count("slow") > 0  # whoever is free takes the next


def test_items_are_not_drawn_long_before_they_are_needed():
    drawn = []
    items = (drawn.append(i) or i for i in range(100))
    for i, _ in enumerate(in_order([lambda x: x, lambda x: x], items)):
        assert len(drawn) <= i + 3


def test_an_error_of_one_device_ends_all():
    drawn = []
    with pytest.raises(ZeroDivisionError):
        list(in_order([lambda x: 1 / (x - 3)] * 2, (drawn.append(i) or i for i in range(100))))
    assert len(drawn) < 10


def test_which_devices_are_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    measured = as_measurable(build(), EvalConfig())
    assert devices_for(measured, EvalConfig()) == [torch.device("cpu")]
    measured.device = torch.device("cuda", 2)
    own = [torch.device("cuda", i) for i in (2, 0, 1, 3)]
    assert devices_for(measured, EvalConfig()) == own
    assert devices_for(measured, EvalConfig(eval_devices=2)) == own[:2]
    peer = ForeignTokenizer(Means(), EvalConfig())
    peer.device = torch.device("cuda", 1)
    assert devices_for(peer, EvalConfig()) == [torch.device("cuda", 1)]
