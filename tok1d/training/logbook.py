"""The records of a training: what each says of a step, and where it goes: the run folder, the doctor, whoever
watches. Numbers are of the whole batch, however it was split.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.config.registry import Diagnosis
from tok1d.config.schema import TrainConfig
from tok1d.distributed import is_main, mean_over_processes, world_size
from tok1d.models.tokenizer import Reconstruction
from tok1d.runs import Run, RunError
from tok1d.training.doctor import Doctor, write_diagnoses
from tok1d.training.parallelize import norm
from tok1d.training.state import State

THUMBNAIL = 32  # pixels; variation is measured on images no larger than that


@torch.no_grad()
def statistics(output: Reconstruction, images: Tensor, codebook_size: int) -> dict[str, Tensor]:
    """Numbers of one part of a batch whose mean over parts is that of the batch."""
    pixels = output.images.float().clamp(0, 1)
    mse = (pixels - images).square().mean((1, 2, 3))  # [B]
    codes = output.codes.float()  # [B, k, dim]
    both = torch.stack([thumbnails(pixels), thumbnails(images)])  # [2, B, 3, h, w]
    numbers = {
        "psnr": (-10 * mse.clamp_min(1e-10).log10()).mean(),
        "moments": torch.stack([both.mean(1), both.square().mean(1)]),  # [2, 2, 3, h, w]
        "code_moments": torch.stack([codes.mean(0), codes.square().mean(0)]),  # [2, k, dim]
    }
    if output.ids is not None:
        numbers["codes"] = torch.bincount(output.ids.flatten(), minlength=codebook_size).float()
    return numbers


def thumbnails(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, THUMBNAIL) if images.shape[-1] > THUMBNAIL else images


def summarize(parts: list[dict[str, Tensor]]) -> dict[str, float]:
    """The means over the parts of a step, and over processes, as numbers."""
    means = {
        name: mean_over_processes(torch.stack([part[name].detach().float() for part in parts]).mean(0))
        for name in sorted(parts[0])
    }
    codes, moments = means.pop("codes", None), means.pop("moments", None)
    code_moments = means.pop("code_moments", None)
    numbers = {name: value.item() for name, value in means.items()}
    if codes is not None:
        numbers |= code_use(codes, len(parts) * world_size())
    if moments is not None:
        (mean, mean_image), (square, square_image) = moments
        varies, images_vary = (square - mean.square()).mean(), (square_image - mean_image.square()).mean()
        numbers["variation"] = (varies / images_vary.clamp_min(1e-12)).item()
    if code_moments is not None:
        mean, square = code_moments
        varies, all_vary = (square - mean.square()).mean(), (square.mean(0) - mean.mean(0).square()).mean()
        numbers["token_variation"] = (varies / all_vary.clamp_min(1e-12)).item()
    return numbers


def code_use(counts: Tensor, parts: int) -> dict[str, float]:
    """From how often each code was used in a mean part: distinct codes as a share of the most there could be,
    and the perplexity, the effective number of codes.
    """
    share = counts / counts.sum()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    used = (counts > 0).sum().item() / min(round(counts.sum().item() * parts), len(counts))
    return {"code_usage": used, "perplexity": entropy.exp().item()}


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """L2 norms of the gradient of each part; `quantizer` is all between encoder and decoder."""
    parts = {
        "encoder": model.encoder.parameters(),
        "decoder": model.decoder.parameters(),
        "quantizer": [*model.to_codes.parameters(), *model.quantizer.parameters()],
    }
    return {
        f"grad_norm_{name}": norm(p.grad for p in parameters if p.grad is not None)
        for name, parameters in parts.items()
    }


class Logbook:
    """`metrics.jsonl` with what a rerun repeats, `timings.jsonl` with what it does not, `diagnoses.json`.

    A new diagnosis is printed, and one that `stop_on` names ends the run. Raises `RunError` for that.
    """

    def __init__(self, run: Run, state: State, config: TrainConfig, on_log: Callable):
        self.run, self.state, self.config, self.on_log = run, state, config, on_log
        run.keep_metrics(state.step)
        self.doctor = Doctor(run)
        self.began = time.monotonic() - state.counts["seconds"]
        self.mark, self.step, self.waited = time.monotonic(), state.step, 0.0

    @property
    def seconds(self) -> float:
        """Of training, over all starts."""
        return time.monotonic() - self.began

    def write(self, record: dict[str, float], waited: float) -> None:
        """Keep the record of a step that is done; `waited` are the seconds spent waiting for images."""
        times = self._lap(waited)
        self.run.log("metrics.jsonl", record)
        self.run.log("timings.jsonl", {"step": record["step"]} | times)
        if is_main():
            self._react(self.doctor.see(record | times))
        self.on_log(record | times)

    def rolled_back(self, evidence: str, at: int) -> None:
        """Training went back to `self.state.step` from step `at`, for the reason that `evidence` gives."""
        self.run.keep_metrics(self.state.step)
        self.mark, self.step = time.monotonic(), self.state.step
        if is_main():
            self._react(self.doctor.see_rollback(at, evidence))

    def _react(self, found: list[Diagnosis]) -> None:
        write_diagnoses(self.run, found)
        for diagnosis in found:
            if diagnosis.name in self.config.stop_on:
                raise RunError(str(diagnosis))
            print(diagnosis)

    def _lap(self, waited: float) -> dict[str, float]:
        """Images a second since the last record, and the share of that time spent waiting for images."""
        now = time.monotonic()
        took, images = max(now - self.mark, 1e-9), (self.state.step - self.step) * self.config.batch_size
        wait = (waited - self.waited) / took
        self.mark, self.step, self.waited = now, self.state.step, waited
        return {"images_per_second": round(images / took, 2), "loader_wait": round(wait, 4)}
