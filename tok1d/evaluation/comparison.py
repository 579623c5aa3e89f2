"""Two runs over the same images: how far apart they are, and how sure that is."""

from __future__ import annotations

from typing import Any

from tok1d.config.metrics import NUMBERS, asked_as
from tok1d.config.schema import ConfigError, EvalConfig
from tok1d.evaluation.bootstrap import Interval, deviations, interval_by_halves, interval_of_sum
from tok1d.evaluation.card import same_card
from tok1d.evaluation.prdc import PRDC
from tok1d.evaluation.table import columns_of, read_table, subsets_of
from tok1d.runs import Run


def compare(first: Run, second: Run, config: EvalConfig) -> list[dict[str, Any]]:
    """`second` minus `first` at each token count that both have: a dict of differences with intervals.

    Paired over the images: what makes an image hard for both cancels out, so the interval is narrower than
    those of the two numbers. Distances of sets are compared by each image's part in them, which
    `tok1d.evaluation.set_numbers` left in the table. Raises `RunError` when the cards differ, `ConfigError`
    without a common count.
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
    rows = []
    for count in counts:
        names = [name for name in NUMBERS if asked_as(name) and name in mine[count] and name in theirs[count]]
        changes = {name: theirs[count][name] - mine[count][name] for name in names}
        found = intervals(first, second, count, changes, config.resamples) if config.resamples else {}
        ends = {f"{name}_interval": list(interval) for name, interval in found.items()}
        rows.append({"num_tokens": count} | changes | ends)
    return rows


def intervals(
    first: Run, second: Run, count: int, changes: dict[str, float], resamples: int
) -> dict[str, Interval]:
    """Of differences by name, where the two tables say enough."""
    tables = first / "eval.parquet", second / "eval.parquet"
    mine, theirs = (subsets_of(path, count) for path in tables)
    subsets = {name: theirs[name] - mine[name] for name in changes if name in mine and name in theirs}
    shared = [name for name in changes if all(name in columns_of(path) for path in tables)]
    a, b = (read_table(path, count, shared) for path in tables)
    found = {}
    for name in shared:
        parts = b[name].to_numpy() - a[name].to_numpy()
        found[name] = interval_of_sum([parts, *deviations(subsets.get(name))], resamples)
    for name in subsets.keys() & PRDC._fields:
        found[name] = interval_by_halves(changes[name], subsets[name])
    return found
