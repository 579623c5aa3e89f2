"""From features of real and of made images to distances between the sets, and what compares two of them.

number = set_numbers("rfid", real, made, resamples=1000)["rfid"]
number.value, number.interval, number.parts.mean()  # the last is the first again
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tok1d.evaluation.bootstrap import Interval, interval_by_halves, interval_of_distance
from tok1d.evaluation.distances import Features, frechet, frechet_infinity, kid_of_subsets
from tok1d.evaluation.influence import frechet_influence, kid_influence
from tok1d.evaluation.prdc import Neighbourhoods

NEIGHBOURS = 5  # k of precision, recall, density and coverage
KID_SUBSETS, KID_SUBSET = 100, 1000  # as torch-fidelity


class Number(NamedTuple):
    """Beside a number, what a comparison of two runs needs, in which both have the same images.

    `parts` are one number for each image: their mean is the value, their spread over √N its uncertainty. None
    without intervals, or where the real images are not those that the others were made from. `subsets` are
    the number in random subsets of the images, the same ones for each run: KID is the mean of these, if they
    are not all images; of precision, recall, density and coverage they are halves.
    """

    value: float
    interval: Interval | None = None
    parts: np.ndarray | None = None  # [N]
    subsets: np.ndarray | None = None  # [100]


def set_numbers(
    metric: str, real: Features, made: Features, resamples: int, paired: bool = True
) -> dict[str, Number]:
    """What `metrics=metric` measures, by name; `resamples` 0: without intervals.

    `paired`: image i of `made` is the reconstruction of image i of `real`.
    """
    if metric == "prdc":
        return of_neighbours(real, made, resamples, paired)
    if metric == "rfid_infinity":
        return {metric: Number(frechet_infinity(real, made))}
    return {metric: (of_kid if metric == "kid" else of_frechet)(real, made, resamples, paired)}


def of_frechet(real: Features, made: Features, resamples: int, paired: bool) -> Number:
    if not resamples:
        return Number(frechet(real, made))
    influence = frechet_influence(real, made)
    interval = interval_of_distance(influence, resamples, paired=paired)
    return Number(influence.value, interval, influence.parts if paired else None)


def of_kid(real: Features, made: Features, resamples: int, paired: bool) -> Number:
    subsets = kid_of_subsets(real, made, KID_SUBSETS, KID_SUBSET)
    value, several = float(subsets.mean()), subsets if len(subsets) > 1 else None
    if not resamples:
        return Number(value)
    influence = kid_influence(real, made, value)
    interval = interval_of_distance(influence, resamples, paired=paired, subsets=several)
    return Number(value, interval, influence.parts if paired else None, several)


def of_neighbours(real: Features, made: Features, resamples: int, paired: bool) -> dict[str, Number]:
    near = Neighbourhoods(real, made, NEIGHBOURS)
    values = near.numbers()._asdict()
    if not resamples:
        return {name: Number(value) for name, value in values.items()}
    halves = near.halves(paired)
    found = {}
    for name, value in values.items():
        low, high = interval_by_halves(value, halves[name])
        most = float("inf") if name == "density" else 1.0  # the others are shares
        found[name] = Number(value, (max(0.0, low), min(most, high)), subsets=halves[name])
    return found
