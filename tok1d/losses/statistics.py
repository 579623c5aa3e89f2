"""What a batch in training says of a tokenizer, beside its losses: quality, use of codes, and variation over
images.

Variation tells collapse from learning: tokens that are alike for all images, or reconstructions that are all
the mean image. Everything is measured on parts of a batch, and true of the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tok1d.models.tokenizer import Reconstruction

THUMBNAIL = 32  # pixels; variation is measured on images no larger than that


@torch.no_grad()
def statistics(output: Reconstruction, images: Tensor, codebook_size: int) -> dict[str, Tensor]:
    """Numbers and tensors of one part of a batch, [B, 3, H, W] in 0 … 1, whose mean over parts is that of the
    batch.
    """
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


def of_batch(means: dict[str, Tensor], parts: int) -> dict[str, float]:
    """From the means over all `parts` of the tensors of `statistics`, what only a whole batch can say:
    `code_usage` and `perplexity` (unless kl), `variation`, `token_variation`.
    """
    numbers = code_use(means["codes"], parts) if "codes" in means else {}
    (mean, mean_image), (square, square_image) = means["moments"]
    varies, images_vary = (square - mean.square()).mean(), (square_image - mean_image.square()).mean()
    numbers["variation"] = (varies / images_vary.clamp_min(1e-12)).item()
    mean, square = means["code_moments"]
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
