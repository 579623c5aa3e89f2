"""Two runs over the same images: how far apart they are, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tok1d.bootstrap import interval_of_difference, interval_of_frechet_difference
from tok1d.card import same_card
from tok1d.config import ConfigError, EvalConfig
from tok1d.eval_table import columns_of, read_table
from tok1d.metrics import NUMBERS
from tok1d.runs import Run
from tok1d.set_metrics import INDEX


def compare(
    first: Run, second: Run, config: EvalConfig, features: Path | None = None, others: Path | None = None
) -> list[dict[str, Any]]:
    """`second` minus `first` at each token count that both have: a dict of differences with intervals.

    Paired over the images: what makes an image hard for both cancels out, so the interval is narrower than
    those of the two numbers. `features` and `others` are the folders in which the two evaluations left the
    features behind distances of sets. Raises `RunError` when the cards differ, `ConfigError` without a
    common count.
    """
    same_card([first, second])
    mine, theirs = ({row["num_tokens"]: row for row in run.evaluation["results"]} for run in (first, second))
    counts = [count for count in mine if count in theirs]
    if not counts:
        asked = [",".join(map(str, rows)) for rows in (mine, theirs)]
        raise ConfigError(
            f"{first.path} was evaluated at {asked[0]} tokens, {second.path} at {asked[1]}: "
            f"there is no common count to compare"
        )
    shared = set(columns_of(first / "eval.parquet")) & set(columns_of(second / "eval.parquet"))
    names = [name for name, metric in NUMBERS.items() if name in shared and metric.case == name]
    rows = []
    for count in counts:
        row: dict[str, Any] = {"num_tokens": count}
        a, b = (read_table(run / "eval.parquet", count, names) for run in (first, second))
        for name in names:
            row[name] = float((b[name] - a[name]).mean())
            low, high = interval_of_difference(
                b[name].to_numpy(), a[name].to_numpy(), config.resamples, seed=0
            )
            row[f"{name}_interval"] = [float(low), float(high)]
        for name, network in (("rfid", "inception"), ("frechet_dinov2", "dinov2")):
            if name in mine[count] and name in theirs[count]:
                row[name] = theirs[count][name] - mine[count][name]
                if ours := kept(features, network, count):
                    _, theirs_made = kept(others, network, count)
                    row[f"{name}_interval"] = interval_of_frechet_difference(
                        ours[0], theirs_made, ours[1], config.resamples, seed=0
                    )
        rows.append(row)
    return rows


def kept(folder: Path | None, network: str, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """A network's features of originals and reconstructions that an evaluation left in its scratch folder.

    None if it left none, or if the reference is another set.
    """
    index = json.loads((folder / INDEX).read_text()).get(network) if folder else None
    if not index or not index["paired"]:
        return None
    paths = index["originals"], index["made"][str(count)]
    originals, made = (np.memmap(path, np.float32, mode="c").reshape(-1, index["dim"]) for path in paths)
    return originals, made
