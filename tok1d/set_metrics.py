"""Distances between the set of reconstructions and a set of real images: rFID, KID, PRDC, Fréchet on DINOv2.

Features of images that pass by are streamed to files; those of real images are kept by fingerprint.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tok1d.bootstrap import interval_of_frechet, interval_of_kid, interval_of_mean
from tok1d.config import EvalConfig
from tok1d.data import Images
from tok1d.distances import frechet, frechet_infinity, kid, prdc_per_image, small_sample_warning
from tok1d.feature_store import FeatureStore
from tok1d.features import Extractor, build_extractor
from tok1d.metrics import NEEDS

NEIGHBOURS = 5  # k of precision, recall, density and coverage
KID_SUBSETS, KID_SUBSET = 100, 1000  # as torch-fidelity
SAID = {
    "rfid": {"name": "Fréchet distance of Inception's features (FID)"},
    "rfid_infinity": {"name": "FID∞: a line through the FIDs of 15 subset sizes, followed to 1 / N = 0"},
    "kid": {
        "name": "kernel distance of Inception's features (KID)",
        "subsets": KID_SUBSETS,
        "size": KID_SUBSET,
    },
    "prdc": {"name": "precision, recall, density, coverage of Inception's features", "k": NEIGHBOURS},
    "frechet_dinov2": {"name": "Fréchet distance of DINOv2's class tokens"},
}
INDEX = "features.json"  # what lies in a scratch folder


class Features:
    """One network's features of originals, of a reference, of each token count's reconstructions."""

    def __init__(self, extractor: Extractor, images: Images, count: int, folder: Path, cache: Path | None):
        self.extractor, self.folder = extractor, folder
        self.originals = self.store(cache or folder, originals_of(images, count))
        self.reference: np.ndarray | None = None
        self.made: dict[int | None, FeatureStore] = {}
        self.open = contextlib.ExitStack()
        self.writing = not self.originals.complete
        if self.writing:
            self.open.enter_context(self.originals)

    def store(self, folder: Path, facts: dict[str, Any]) -> FeatureStore:
        network = {name: fact for name, fact in self.extractor.facts.items() if name != "source"}
        return FeatureStore(folder, self.extractor.dim, facts | {"extractor": network})

    def see(self, batch: Tensor, first: int) -> None:
        """The features of originals from index `first`, from the file that has them or anew."""
        if self.writing:
            self.seen = self.extractor(batch)
            self.originals.append(self.seen)
        else:
            kept = np.array(self.originals.features[first : first + len(batch)])
            self.seen = torch.from_numpy(kept).to(batch.device)

    def add(self, count: int | None, saved: Tensor) -> Tensor:
        """How far each reconstruction's features are from its original's, Euclidean: [B]."""
        if count not in self.made:
            self.made[count] = self.store(self.folder, {"reconstructed from": count})
            self.open.enter_context(self.made[count])
        features = self.extractor(saved)
        self.made[count].append(features)
        return (features - self.seen).norm(dim=1)

    def real(self) -> np.ndarray:
        return self.originals.features if self.reference is None else self.reference


class SetMetrics:
    """For each batch first `see` the originals, then `add` the reconstructions at each token count."""

    def __init__(
        self,
        config: EvalConfig,
        images: Images,
        reference: Images | None,
        folder: Path,
        cache: Path | None,
        device: torch.device,
    ):
        """Raises `ConfigError` if the weights of a network cannot be had."""
        self.config, self.folder, self.device, self.warnings = config, folder, device, []
        self.asked = [name for name in SAID if name in config.metrics]
        self.networks: dict[str, Features] = {}
        self.facts: dict[str, Any] = {}
        self.paired = reference is None
        count = min(config.eval_images or len(images), len(images))
        for name in dict.fromkeys(NEEDS[metric] for metric in self.asked):
            weights = config.inception_weights if name == "inception" else config.dino_weights
            extractor = build_extractor(name, weights, config.dino_size, config.feature_dtype).to(device)
            self.networks[name] = Features(extractor, images, count, folder, cache)
            if reference is not None:
                self.networks[name].reference = self.features_of(reference, name, cache or folder)
        for metric in self.asked:
            network = self.networks[NEEDS[metric]]
            of_network = {k: v for k, v in network.extractor.facts.items() if k not in ("source", "torch")}
            against = {"reference": "the evaluated images"}
            if reference is not None:
                against = {"reference": originals_of(reference, len(reference))}
            self.facts[metric] = SAID[metric] | of_network | against
            real = count if reference is None else len(reference)
            if "Fréchet" in SAID[metric]["name"]:
                warning = small_sample_warning(min(count, real), network.extractor.dim)
                self.warnings += [f"{metric}: {warning}"] if warning else []

    def features_of(self, images: Images, name: str, folder: Path) -> np.ndarray:
        """The features of all of a reference, computed once."""
        store = self.networks[name].store(folder, originals_of(images, len(images)))
        if not store.complete:
            with store:
                for batch in images.batches(self.config.eval_batch_size):
                    store.append(self.networks[name].extractor(batch.to(self.device)))
        return store.features

    def __enter__(self) -> SetMetrics:
        return self

    def __exit__(self, *error: Any) -> None:
        """All features are in their files; after an error none is kept."""
        for network in self.networks.values():
            network.open.__exit__(*error)

    def see(self, batch: Tensor, first: int) -> None:
        """batch uint8 [B, 3, H, W], the originals from index `first`."""
        for network in self.networks.values():
            network.see(batch.to(self.device), first)

    def add(self, count: int | None, saved: Tensor) -> dict[str, Tensor]:
        """saved uint8 [B, 3, H, W] -> how far each image's features moved, by network."""
        shifts = {name: network.add(count, saved.to(self.device)) for name, network in self.networks.items()}
        return {f"{name}_shift": shift for name, shift in shifts.items()}

    def numbers(self, count: int | None) -> dict[str, Any]:
        """The asked distances at one token count, each with its interval."""
        found: dict[str, Any] = {}
        resamples = self.config.resamples
        for metric in self.asked:
            network = self.networks[NEEDS[metric]]
            real, made = network.real(), network.made[count].features
            if metric in ("rfid", "frechet_dinov2"):
                found[metric] = frechet(real, made)
                if resamples:
                    found[f"{metric}_interval"] = interval_of_frechet(real, made, resamples, 0, self.paired)
            elif metric == "rfid_infinity":
                found[metric] = frechet_infinity(real, made)
            elif metric == "kid":
                found["kid"], _ = kid(real, made, KID_SUBSETS, KID_SUBSET)
                if resamples:
                    found["kid_interval"] = interval_of_kid(
                        found["kid"], real, made, resamples, 0, self.paired
                    )
            else:
                for name, values in prdc_per_image(real, made, NEIGHBOURS)._asdict().items():
                    found[name] = values.mean().item()
                    if resamples:
                        found[f"{name}_interval"] = interval_of_mean(values.numpy(), resamples, 0)
        return found

    def write_index(self) -> None:
        """Where the features lie, for `tok1d.comparison`."""
        index = {
            name: {
                "dim": network.extractor.dim,
                "paired": self.paired,
                "originals": str(network.originals.path),
                "made": {str(count): str(store.path) for count, store in network.made.items()},
            }
            for name, network in self.networks.items()
        }
        (self.folder / INDEX).write_text(json.dumps(index))


def originals_of(images: Images, count: int) -> dict[str, Any]:
    """What decides the pixels of the first `count` images."""
    return {
        "data_fingerprint": images.fingerprint,
        "image_size": images.size,
        "resize": images.rule,
        "images": count,
    }
