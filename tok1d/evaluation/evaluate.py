"""Numbers for a tokenizer, each with its interval, and the card that says how they were measured.

    evaluation = evaluate(tokenizer, images, config)  # ours, or any object with encode and decode
    evaluation["results"]  # one dict a token count: {"num_tokens": 16, "psnr": 21.4, "psnr_interval": …}
    evaluation["card"]  # see `tok1d.evaluation.card`

One pass over the images serves all token counts, and memory does not grow with their number: sums stay, rows
and features go to files.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.registry import METRICS
from tok1d.config.schema import EvalConfig
from tok1d.data.dataset import ImageDataset, to_float, to_uint8
from tok1d.evaluation.measured import ForeignTokenizer, NativeTokenizer, as_measurable
from tok1d.evaluation.metrics.bootstrap import interval_of_mean
from tok1d.evaluation.metrics.images import build_image_metrics
from tok1d.evaluation.metrics.sets import SetMetrics
from tok1d.evaluation.metrics.tokens import CodeCounts
from tok1d.evaluation.table import ImageTable, columns_of, complete_table, read_table
from tok1d.evaluation.workers import (
    UINT8,
    Batch,
    BatchResult,
    CountResult,
    Saving,
    Worker,
    devices_for,
    in_order,
)
from tok1d.models.weights import as_bytes
from tok1d.system.environment import made_with
from tok1d.system.files import scratch


def evaluate(
    tokenizer: Any,
    images: ImageDataset,
    config: EvalConfig,
    *,
    reference: ImageDataset | None = None,
    table: Path | None = None,
    cache: Path | None = None,
    saving: Saving = UINT8,
    devices: Sequence[torch.device | str] = (),
) -> dict[str, Any]:
    """Measure a tokenizer at every requested token count: `{"card", "results", "positions", "warnings"}`.

    PSNR (dB), SSIM, MS-SSIM and LPIPS are means over images of the saved reconstruction against the original;
    code usage is the share of the codebook that the images' tokens touch, perplexity the effective number of
    codes (softvq: of each token's strongest; kl has no codes, so neither is there). Distances of sets
    (rFID …) are to `reference`, or to the originals. `positions` has each token position's entropy and usage.
    Speeds are those of one device while all of them work: images over the seconds, summed over devices, of
    encoding or decoding them.

    `table` is where the per-image table goes, `cache` where features of a set are kept for the next time.
    `devices` compute, by default those of `tok1d.evaluation.workers.devices_for`. Objects that are no
    `Tokenizer`: see `tok1d.evaluation.measured`. Raises `ConfigError`: no images, weights that cannot be had,
    token counts that it does not have.
    """
    count = number_of(images, config)
    if count < 2:  # nothing to draw again
        config = config.model_copy(update={"resamples": 0})
    measured = as_measurable(tokenizer, config)
    chosen = [torch.device(device) for device in devices] or devices_for(measured, config)
    with scratch() as folder:
        sets = SetMetrics(config, images, reference, folder, cache, chosen)
        return Evaluator(measured, images, config, folder, sets, table, saving).evaluation()


def number_of(images: ImageDataset, config: EvalConfig) -> int:
    """How many images are measured. Raises `ConfigError` if they are too few."""
    count = min(config.eval_images or len(images), len(images))
    if not count:
        raise ConfigError("there are no images to evaluate on: give at least one")
    of_sets = [metric for metric in config.metrics if METRICS[metric].network]
    if count < 2 and of_sets:
        raise ConfigError(
            f"{of_sets[0]} is a distance of sets and here is a single image: give more, or metrics=psnr"
        )
    return count


class CountTotals:
    """What is gathered at one token count."""

    def __init__(self) -> None:
        self.images = 0
        self.encode_seconds = self.decode_seconds = 0.0
        self.codes: CodeCounts | None = None

    def speeds(self) -> dict[str, float]:
        seconds = {"encode": self.encode_seconds, "decode": self.decode_seconds}
        return {f"{name}_images_per_s": self.images / s for name, s in seconds.items() if s}


class Evaluator:
    """One pass over the images: every batch is read once, encoded once, decoded at each token count."""

    def __init__(
        self,
        measured: NativeTokenizer | ForeignTokenizer,
        images: ImageDataset,
        config: EvalConfig,
        folder: Path,
        sets: SetMetrics,
        table: Path | None,
        saving: Saving,
    ):
        self.measured, self.images, self.config, self.saving = measured, images, config, saving
        self.folder, self.sets = folder, sets
        self.workers = []
        for i, device in enumerate(sets.devices):
            own = measured.on(device) if i or device != measured.device else measured
            metrics, self.warnings = build_image_metrics(config, images.size, device)
            self.workers.append(Worker(own, metrics, sets.on(i), saving))
        self.metrics = self.workers[0].metrics
        self.table = ImageTable(table or folder / "images.parquet")
        self.rows: dict[int | None, CountTotals] = {}
        self.pixels = hashlib.sha256()
        self.parts: dict[int | None, dict[str, np.ndarray]] = {}
        self.subsets: dict[str, dict[str, list[float]]] = {}

    def evaluation(self) -> dict[str, Any]:
        with self.sets:
            for found in in_order(self.workers, self.batches()):
                self.accumulate(found)
                give_back_memory()
        self.table.close()
        counts = sorted(self.rows, key=lambda count: count or 0)
        results = [
            self.of_images(count) | self.of_sets(count) | self.rows[count].speeds() for count in counts
        ]
        complete_table(self.table.path, self.parts, self.subsets)
        codes = {count: self.rows[count].codes for count in counts if self.rows[count].encode_seconds}
        return {
            "card": self.card(),
            "results": results,
            "positions": {str(count): found.positions() for count, found in codes.items() if found},
            "warnings": self.warnings + self.sets.warnings,
        }

    def batches(self) -> Iterator[Batch]:
        """Every image once, in order."""
        first = 0
        for images in self.images.batches(self.config.eval_batch_size, self.config.eval_images):
            self.pixels.update(as_bytes(images))
            yield Batch(first, images, self.sets.kept(slice(first, first + len(images))))
            first += len(images)

    def accumulate(self, found: BatchResult) -> None:
        """What was found of the next batch, into counts and files."""
        first, size = found.batch.first, len(found.batch.images)
        names = self.images.names[first : first + size]
        for at in found.counts:
            row = self.rows.setdefault(at.num_tokens, CountTotals())
            row.images += size
            row.encode_seconds += at.encode_seconds
            row.decode_seconds += at.decode_seconds
            self.table.add(names, first, at.num_tokens, at.columns | self.count_codes(row, at))
        self.sets.add(found)

    def count_codes(self, row: CountTotals, at: CountResult) -> dict[str, Tensor]:
        size = self.measured.codebook_size
        if at.ids is None or not size:
            return {}
        if row.codes is None:
            row.codes = CodeCounts(at.ids.shape[1], size, self.folder / f"ids-{at.num_tokens}")
        return {"different_codes": row.codes.add(at.ids)}

    def of_images(self, count: int | None) -> dict[str, Any]:
        """What the per-image table and the counts of codes say of one token count."""
        found: dict[str, Any] = {"num_tokens": count}
        columns = columns_of(self.table.path)
        rows = read_table(self.table.path, count, columns)
        if "bits" in columns:
            found["bits"] = statistics.fmean(rows["bits"])
        for name in self.metrics:
            values = rows[name].to_numpy(dtype="float64")
            found[name] = float(values.mean())
            if self.config.resamples:
                found[f"{name}_interval"] = list(interval_of_mean(values, self.config.resamples, seed=0))
        if codes := self.rows[count].codes:
            found |= codes.numbers(self.config.resamples)
        return found

    def of_sets(self, count: int | None) -> dict[str, Any]:
        """Distances between the sets at one token count; each image's part in them waits in a file."""
        found: dict[str, Any] = {}
        for name, number in self.sets.numbers(count).items():
            found[name] = number.value
            if number.interval:
                found[f"{name}_interval"] = list(number.interval)
            if number.subsets is not None:
                self.subsets.setdefault(str(count), {})[name] = number.subsets.tolist()
            if number.parts is not None:
                file = self.folder / f"{name}-{count}.npy"
                np.save(file, number.parts)
                self.parts.setdefault(count, {})[name] = np.load(file, mmap_mode="r")
        return found

    def card(self) -> dict[str, Any]:
        """How the numbers were measured; `card.py` says which of it a comparison must share."""
        metrics = {name: metric.card for name, metric in self.metrics.items()} | self.sets.cards
        return {
            **self.measured.identity,
            "token_counts": list(self.rows),
            "images": number_of(self.images, self.config),
            "image_size": self.images.size,
            "resize": self.images.rule,
            "reconstruction": self.saving.rule,
            "dtype": self.config.eval_dtype,
            "data_fingerprint": self.images.fingerprint,
            "pixels_sha256": self.pixels.hexdigest(),
            "metrics": metrics,
            "made_with": made_with(self.workers[0].device),
        }


def give_back_memory() -> None:
    """What was freed, to the system: glibc would keep it in pieces, 0.2 MB more for every image."""
    with contextlib.suppress(AttributeError, OSError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


@torch.no_grad()
def reconstruct(tokenizer: Any, images: Tensor, counts: tuple[int, ...]) -> dict[int | None, Tensor]:
    """uint8 [B, 3, H, W] -> {token count: its reconstruction, uint8 [B, 3, H, W]}, of anything measurable."""
    measured = as_measurable(tokenizer, EvalConfig(token_counts=counts))
    encoded = measured.encode(to_float(images.to(measured.device)))
    return {at.num_tokens: to_uint8(measured.decode(at.codes)).cpu() for at in encoded}
