"""What a record of `metrics.jsonl` says of a step: numbers of the whole batch, however it was split."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.distributed import mean_over_processes, world_size
from tok1d.models.tokenizer import Reconstruction
from tok1d.training.parallelize import norm

THUMBNAIL = 32  # pixels; variation is measured on images no larger than that


@torch.no_grad()
def statistics(output: Reconstruction, images: Tensor, codebook_size: int) -> dict[str, Tensor]:
    """Facts of one part of a batch whose mean over parts is the fact of the batch."""
    pixels = output.images.float().clamp(0, 1)
    mse = (pixels - images).square().mean((1, 2, 3))  # [B]
    codes = output.codes.float()  # [B, k, dim]
    both = torch.stack([thumbnails(pixels), thumbnails(images)])  # [2, B, 3, h, w]
    facts = {
        "psnr": (-10 * mse.clamp_min(1e-10).log10()).mean(),
        "moments": torch.stack([both.mean(1), both.square().mean(1)]),  # [2, 2, 3, h, w]
        "code_moments": torch.stack([codes.mean(0), codes.square().mean(0)]),  # [2, k, dim]
    }
    if output.ids is not None:
        facts["codes"] = torch.bincount(output.ids.flatten(), minlength=codebook_size).float()
    return facts


def thumbnails(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, THUMBNAIL) if images.shape[-1] > THUMBNAIL else images


def summarise(parts: list[dict[str, Tensor]]) -> dict[str, float]:
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
