"""Distances between the set of reconstructions and a set of real images: rFID, KID, PRDC, Fréchet on DINOv2.

Features of images that pass by are streamed to files; those of real images are kept by fingerprint.

number = set_distances("rfid", real, made, resamples=1000)["rfid"]
number.value, number.interval, number.parts.mean()  # the last is the first again
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tok1d.config.registry import METRICS
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import ImageDataset
from tok1d.evaluation.metrics.bootstrap import Interval, interval_by_halves, interval_of_distance
from tok1d.evaluation.metrics.distances import (
    Features,
    NearestNeighbors,
    frechet,
    frechet_infinity,
    frechet_influence,
    kid_influence,
    kid_of_subsets,
    small_sample_warning,
)
from tok1d.evaluation.metrics.features import (
    Extractor,
    FeatureStore,
    build_extractor,
    checkpoint_of,
    networks_of,
)
from tok1d.evaluation.workers import BatchResult, copies, in_order

NEIGHBOURS = 5  # k of precision, recall, density and coverage
KID_SUBSETS, KID_SUBSET = 100, 1000  # as torch-fidelity


class SetDistance(NamedTuple):
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


def set_distances(
    metric: str, real: Features, made: Features, resamples: int, paired: bool = True
) -> dict[str, SetDistance]:
    """What `metrics=metric` measures, by name; `resamples` 0: without intervals.

    real and made [N, D] and [M, D]; `paired`: image i of `made` is the reconstruction of image i of `real`.
    """
    found = SET_METRICS[metric].measure(real, made, resamples, paired)
    return {metric: found} if isinstance(found, SetDistance) else found


Measure = Callable[[Features, Features, int, bool], SetDistance | dict[str, SetDistance]]


class SetMetric(NamedTuple):
    measure: Measure  # real [N, D], made [M, D], resamples, paired -> its number, or its numbers by name
    facts: dict[str, Any]  # for the card, beside what the registry and the network say
    gaussian: bool  # of a covariance, which too few images cannot tell


SET_METRICS: dict[str, SetMetric] = {}  # a function for each of `METRICS` that compares features


def set_metric(*names: str, gaussian: bool = False, **facts: Any) -> Callable[[Measure], Measure]:
    """A decorator: the function measures these rows of `tok1d.config.registry.METRICS`."""

    def register(measure: Measure) -> Measure:
        for name in names:
            SET_METRICS[name] = SetMetric(measure, facts, gaussian)
        return measure

    return register


@set_metric("rfid_infinity", gaussian=True)
def frechet_at_infinity(real: Features, made: Features, resamples: int, paired: bool) -> SetDistance:
    return SetDistance(frechet_infinity(real, made))


@set_metric("rfid", "frechet_dinov2", gaussian=True)
def frechet_with_interval(real: Features, made: Features, resamples: int, paired: bool) -> SetDistance:
    if not resamples:
        return SetDistance(frechet(real, made))
    influence = frechet_influence(real, made)
    interval = interval_of_distance(influence, resamples, paired=paired)
    return SetDistance(influence.value, interval, influence.parts if paired else None)


@set_metric("kid", subsets=KID_SUBSETS, size=KID_SUBSET)
def kid_with_interval(real: Features, made: Features, resamples: int, paired: bool) -> SetDistance:
    subsets = kid_of_subsets(real, made, KID_SUBSETS, KID_SUBSET)
    value, several = float(subsets.mean()), subsets if len(subsets) > 1 else None
    if not resamples:
        return SetDistance(value)
    influence = kid_influence(real, made, value)
    interval = interval_of_distance(influence, resamples, paired=paired, subsets=several)
    return SetDistance(value, interval, influence.parts if paired else None, several)


@set_metric("prdc", k=NEIGHBOURS)
def prdc_with_intervals(
    real: Features, made: Features, resamples: int, paired: bool
) -> dict[str, SetDistance]:
    near = NearestNeighbors(real, made, NEIGHBOURS)
    values = near.prdc()._asdict()
    if not resamples:
        return {name: SetDistance(value) for name, value in values.items()}
    halves = near.random_halves(paired)
    found = {}
    for name, value in values.items():
        low, high = interval_by_halves(value, halves[name])
        most = float("inf") if name == "density" else 1.0  # the others are shares
        found[name] = SetDistance(value, (max(0.0, low), min(most, high)), subsets=halves[name])
    return found


class NetworkFeatures:
    """One network's features of originals, of a reference, of each token count's reconstructions."""

    def __init__(
        self, extractors: list[Extractor], images: ImageDataset, count: int, folder: Path, cache: Path | None
    ):
        self.extractors, self.folder = extractors, folder  # one on each device
        self.originals = self.store(cache or folder, originals_of(images, count))
        self.reference: np.ndarray | None = None
        self.made: dict[int | None, FeatureStore] = {}
        self.open = contextlib.ExitStack()
        self.writing = not self.originals.complete
        if self.writing:
            self.open.enter_context(self.originals)

    def store(self, folder: Path, identity: dict[str, Any]) -> FeatureStore:
        extractor = self.extractors[0]
        network = {name: fact for name, fact in extractor.card.items() if name != "source"}
        return FeatureStore(folder, extractor.dim, identity | {"extractor": network})

    def kept(self, rows: slice) -> Tensor:
        """The features of these originals, from the file that has them."""
        return torch.from_numpy(np.array(self.originals.features[rows]))

    def add(self, originals: Tensor, made: dict[int | None, Tensor]) -> None:
        """The next images' features, [B, D], and those of their reconstructions at each token count."""
        if self.writing:
            self.originals.append(originals)
        self.add_made(made)

    def add_made(self, made: Mapping[Any, Tensor]) -> None:
        """The features, [B, D], of the next images at each token count."""
        for count, features in made.items():
            if count not in self.made:
                self.made[count] = self.store(self.folder, {"reconstructed from": count})
                self.open.enter_context(self.made[count])
            self.made[count].append(features)

    def real(self) -> np.ndarray:
        return self.originals.features if self.reference is None else self.reference


class SetMetrics:
    """Of each batch `kept` gives the features that are known; `add` takes what was found of it."""

    def __init__(
        self,
        config: EvalConfig,
        images: ImageDataset,
        reference: ImageDataset | None,
        folder: Path,
        cache: Path | None,
        devices: Sequence[torch.device],
    ):
        """Raises `ConfigError` if the weights of a network cannot be had."""
        self.config, self.folder, self.devices, self.warnings = config, folder, devices, []
        self.asked = [name for name in METRICS if name in config.metrics and METRICS[name].network]
        self.networks: dict[str, NetworkFeatures] = {}
        self.cards: dict[str, Any] = {}
        self.paired = reference is None
        count = min(config.eval_images or len(images), len(images))
        for name in networks_of(self.asked):
            weights = checkpoint_of(name, config)
            extractor = build_extractor(name, weights, config.dino_size, config.feature_dtype)
            self.networks[name] = NetworkFeatures(copies(extractor, devices), images, count, folder, cache)
            if reference is not None:
                self.networks[name].reference = self.features_of(reference, name, cache or folder)
        for metric in self.asked:
            network = self.networks[METRICS[metric].network]
            of_network = {k: v for k, v in network.extractors[0].card.items() if k not in ("source", "torch")}
            against: dict[str, Any] = {"reference": "the evaluated images"}
            if reference is not None:
                against = {"reference": originals_of(reference, len(reference))}
            own = {"name": METRICS[metric].card} | SET_METRICS[metric].facts
            self.cards[metric] = own | of_network | against
            real = count if reference is None else len(reference)
            if SET_METRICS[metric].gaussian:
                warning = small_sample_warning(min(count, real), network.extractors[0].dim)
                self.warnings += [f"{metric}: {warning}"] if warning else []

    def features_of(self, images: ImageDataset, name: str, folder: Path) -> np.ndarray:
        """The features of all of a reference, computed once."""
        store = self.networks[name].store(folder, originals_of(images, len(images)))
        if not store.complete:
            workers = [
                lambda batch, device=device, extractor=extractor: extractor(batch.to(device)).cpu()
                for device, extractor in zip(self.devices, self.networks[name].extractors, strict=True)
            ]
            with store:
                for features in in_order(workers, images.batches(self.config.eval_batch_size)):
                    store.append(features)
        return store.features

    def on(self, index: int) -> dict[str, Extractor]:
        """The networks on one of the devices, by name."""
        return {name: network.extractors[index] for name, network in self.networks.items()}

    def __enter__(self) -> SetMetrics:
        return self

    def __exit__(self, *error: Any) -> None:
        """All features are in their files; after an error none is kept."""
        for network in self.networks.values():
            network.open.__exit__(*error)

    def kept(self, rows: slice) -> dict[str, Tensor]:
        """The features of these originals by network, [B, D], where there is a file with them."""
        return {name: network.kept(rows) for name, network in self.networks.items() if not network.writing}

    def add(self, found: BatchResult) -> None:
        """The features of the next batch."""
        for name, network in self.networks.items():
            network.add(found.features[name], {at.num_tokens: at.features[name] for at in found.counts})

    def numbers(self, count: int | None) -> dict[str, SetDistance]:
        """The asked distances at one token count."""
        found: dict[str, SetDistance] = {}
        for metric in self.asked:
            network = self.networks[METRICS[metric].network]
            made = network.made[count].features
            found |= set_distances(metric, network.real(), made, self.config.resamples, self.paired)
        return found


def originals_of(images: ImageDataset, count: int) -> dict[str, Any]:
    """What decides the pixels of the first `count` images."""
    return {
        "data_fingerprint": images.fingerprint,
        "image_size": images.size,
        "resize": images.rule,
        "images": count,
    }
