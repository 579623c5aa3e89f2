"""Numbers for a tokenizer, each with its interval, and the card that says how they were measured.

    evaluation = evaluate(tokenizer, images, config)  # ours, or any object with encode and decode
    evaluation["results"]  # one dict a token count: {"num_tokens": 16, "psnr": 21.4, "psnr_interval": …}
    evaluation["card"]  # see `tok1d.card`

One pass over the images serves all token counts, and memory does not grow with their number: sums stay, rows
and features go to files.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tok1d.bootstrap import interval_of_mean
from tok1d.card import as_bytes
from tok1d.code_statistics import CodeCounts
from tok1d.config import ConfigError, EvalConfig
from tok1d.data import Images, to_float, to_uint8
from tok1d.eval_table import ImageTable, columns_of, read_table
from tok1d.image_metrics import build_image_metrics
from tok1d.metrics import NEEDS
from tok1d.peers import Encoded, Ours, Peer, as_measured, timed
from tok1d.provenance import made_with
from tok1d.set_metrics import SetMetrics
from tok1d.tokenizer import Tokenizer


class Saving(NamedTuple):
    """How a decoder's output becomes an image. Rounding, clamping, files of another kind all move numbers."""

    rule: str
    apply: Callable[[Tensor], Tensor]  # float [B, 3, H, W], about 0 … 1 -> uint8 [B, 3, H, W]


UINT8 = Saving("clamped to 0 … 1, rounded to uint8", to_uint8)


@torch.no_grad()
def evaluate(
    tokenizer: Any,
    images: Images,
    config: EvalConfig,
    *,
    reference: Images | None = None,
    table: Path | None = None,
    scratch: Path | None = None,
    cache: Path | None = None,
    saving: Saving = UINT8,
) -> dict[str, Any]:
    """Measure a tokenizer at every requested token count: `{"card", "results", "positions", "warnings"}`.

    PSNR (dB), SSIM, MS-SSIM and LPIPS are means over images of the saved reconstruction against the original;
    code usage is the share of the codebook that the images' tokens touch, perplexity the effective number of
    codes (softvq: of each token's strongest; kl has no codes, so neither is there). Distances of sets
    (rFID …) are to `reference`, or to the originals. `positions` has each token position's entropy and usage.

    `table` is where the per-image table goes, `scratch` where features stay after the evaluation, `cache`
    where those of a set are kept for the next one. Objects that are no `Tokenizer`: see `tok1d.peers`. Raises
    `ConfigError`: no images, weights that cannot be had, token counts that it does not have.
    """
    count = number_of(images, config)
    if count < 2:  # nothing to draw again
        config = config.model_copy(update={"resamples": 0})
    with contextlib.ExitStack() as stack:
        folder = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tok1d-")))
        one_pass = Pass(as_measured(tokenizer, config), images, config, folder, table, saving)
        one_pass.sets = SetMetrics(config, images, reference, folder, cache, one_pass.measured.device)
        return one_pass.evaluation()


def number_of(images: Images, config: EvalConfig) -> int:
    """How many images are measured. Raises `ConfigError` if they are too few."""
    count = min(config.eval_images or len(images), len(images))
    if not count:
        raise ConfigError("there are no images to evaluate on: give at least one")
    if count < 2 and set(config.metrics) & set(NEEDS):
        asked = next(metric for metric in config.metrics if metric in NEEDS)
        raise ConfigError(
            f"{asked} is a distance of sets and here is a single image: give more, or metrics=psnr"
        )
    return count


class Row:
    """What is gathered at one token count."""

    def __init__(self):
        self.images = 0
        self.encode_seconds = self.decode_seconds = 0.0
        self.codes: CodeCounts | None = None

    def speeds(self) -> dict[str, float]:
        seconds = {"encode": self.encode_seconds, "decode": self.decode_seconds}
        return {f"{name}_images_per_s": self.images / s for name, s in seconds.items() if s}


class Pass:
    """One pass over the images: every batch is read once, encoded once, decoded at each token count."""

    sets: SetMetrics

    def __init__(
        self,
        measured: Ours | Peer,
        images: Images,
        config: EvalConfig,
        folder: Path,
        table: Path | None,
        saving: Saving,
    ):
        self.measured, self.images, self.config, self.saving = measured, images, config, saving
        self.folder = folder
        self.metrics, self.warnings = build_image_metrics(config, images.size, measured.device)
        self.table = ImageTable(table or folder / "images.parquet")
        self.rows: dict[int | None, Row] = {}
        self.pixels = hashlib.sha256()

    def evaluation(self) -> dict[str, Any]:
        first = 0
        with self.sets:
            for batch in self.images.batches(self.config.eval_batch_size, self.config.eval_images):
                self.measure(batch, self.images.names[first : first + len(batch)], first)
                first += len(batch)
                give_back_memory()
        self.table.close()
        self.sets.write_index()
        counts = sorted(self.rows, key=lambda count: count or 0)
        results = [self.numbers(count) for count in counts]
        codes = {count: self.rows[count].codes for count in counts if self.rows[count].encode_seconds}
        return {
            "card": self.card(),
            "results": results,
            "positions": {str(count): found.positions() for count, found in codes.items() if found},
            "warnings": self.warnings + self.sets.warnings,
        }

    def measure(self, batch: Tensor, names: list[str], first: int) -> None:
        """batch uint8 [B, 3, H, W]."""
        self.pixels.update(as_bytes(batch))
        original = to_float(batch.to(self.measured.device))
        self.sets.see(batch, first)
        for encoded in self.measured.encode(original):
            output, seconds = timed(lambda e=encoded: self.measured.decode(e.codes), self.measured.device)
            row = self.rows.setdefault(encoded.num_tokens, Row())
            row.images += len(batch)
            row.encode_seconds += encoded.seconds
            row.decode_seconds += seconds
            saved = self.saving.apply(output)
            restored = to_float(saved.to(original.device))
            columns = {name: metric.measure(restored, original) for name, metric in self.metrics.items()}
            columns |= self.count_codes(row, encoded) | self.sets.add(encoded.num_tokens, saved)
            if encoded.bits is not None:
                columns["bits"] = torch.tensor(encoded.bits, dtype=torch.float64)
            self.table.add(names, first, encoded.num_tokens, columns)

    def count_codes(self, row: Row, encoded: Encoded) -> dict[str, Tensor]:
        size = self.measured.codebook_size
        if encoded.ids is None or not size:
            return {}
        if row.codes is None:
            row.codes = CodeCounts(encoded.num_tokens, size, self.folder / f"ids-{encoded.num_tokens}")
        return {"different_codes": row.codes.add(encoded.ids)}

    def numbers(self, count: int | None) -> dict[str, Any]:
        """What `results` says of one token count."""
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
        if self.rows[count].codes:
            found |= self.rows[count].codes.numbers(self.config.resamples)
        return found | self.sets.numbers(count) | self.rows[count].speeds()

    def card(self) -> dict[str, Any]:
        """How the numbers were measured; see `tok1d.card` for which of it a comparison must share."""
        metrics = {name: metric.facts for name, metric in self.metrics.items()} | self.sets.facts
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
            "made_with": made_with(self.measured.device),
        }


def give_back_memory() -> None:
    """What was freed, to the system: glibc would keep it in pieces, 0.2 MB more for every image."""
    with contextlib.suppress(AttributeError, OSError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


@torch.no_grad()
def reconstruct(tokenizer: Tokenizer, images: Tensor, counts: tuple[int, ...]) -> dict[int, Tensor]:
    """uint8 [B, 3, H, W] -> {token count: its reconstruction, uint8 [B, 3, H, W]}."""
    tokenizer.eval()
    originals = to_float(images.to(tokenizer.device))
    return {
        count: to_uint8(tokenizer.decode(tokenizer.quantize(originals, count).codes)).cpu()
        for count in counts
    }
