"""Numbers for a tokenizer, each with the card that says how it was measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from tok1d.config import EvalConfig
from tok1d.data import Images, to_float, to_uint8
from tok1d.images import RESIZE_RULE
from tok1d.tokenizer import Tokenizer


@torch.no_grad()
def evaluate(tokenizer: Tokenizer, images: Images, config: EvalConfig) -> dict[str, Any]:
    """Measure a tokenizer at every requested token count: `{"card": …, "results": [one dict a count]}`.

    PSNR (dB) and SSIM are means over images of the reconstruction, clamped and rounded to uint8, against the
    original; code usage is the share of the codebook that the images' tokens touch, perplexity the effective
    number of codes (softvq: of each token's strongest; kl has no codes, so neither is there). Bits are those
    of `TokenizerConfig.bits_per_token`.
    """
    counts = config.token_counts or tokenizer.config.token_counts
    results = [measure(tokenizer, images, count, config) for count in counts]
    return {"card": card(images, config), "results": results}


def card(images: Images, config: EvalConfig) -> dict[str, Any]:
    """Everything that two numbers must share to be compared."""
    return {
        "metrics": "PSNR (dB), SSIM (torchmetrics, data range 1): means over images",
        "images": min(config.eval_images or len(images), len(images)),
        "image_size": images.size,
        "resize": RESIZE_RULE,
        "reconstruction": "clamped and rounded to uint8",
        "data_fingerprint": images.fingerprint,
    }


@torch.no_grad()
def measure(tokenizer: Tokenizer, images: Images, num_tokens: int, config: EvalConfig) -> dict[str, Any]:
    tokenizer.eval()
    psnrs, ssims = [], []
    counts = torch.zeros(tokenizer.quantizer.codebook_size)
    for batch in images.batches(config.eval_batch_size, config.eval_images):
        original = to_float(batch.to(tokenizer.device))
        codes, ids, *_ = tokenizer.quantize(original, num_tokens)
        restored = to_float(to_uint8(tokenizer.decode(codes)))
        psnrs.append(psnr(restored, original))
        ssims.append(
            structural_similarity_index_measure(restored, original, data_range=1.0, reduction="none")
        )
        if ids is not None:
            counts += torch.bincount(ids.flatten().cpu(), minlength=len(counts))
    numbers = {
        "num_tokens": num_tokens,
        "bits": num_tokens * tokenizer.config.bits_per_token,
        "psnr": torch.cat(psnrs).mean().item(),
        "ssim": torch.cat(ssims).mean().item(),
    }
    return numbers | code_use(counts) if len(counts) else numbers


def code_use(counts: Tensor) -> dict[str, float]:
    """From how often each code was used: the share that was used at all, and the perplexity."""
    p = counts / counts.sum()
    return {
        "code_usage": (counts > 0).float().mean().item(),
        "code_perplexity": torch.exp(-(p * p.clamp_min(1e-12).log()).sum()).item(),
    }


def psnr(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, dB: two [B, 3, H, W] in 0 … 1 -> [B]. Equal images give 100
    dB.
    """
    mse = (reconstruction - original).square().mean((1, 2, 3))
    return -10 * mse.clamp_min(1e-10).log10()


@torch.no_grad()
def reconstruct(tokenizer: Tokenizer, images: Tensor, counts: tuple[int, ...]) -> dict[int, Tensor]:
    """uint8 [B, 3, H, W] -> {token count: its reconstruction, uint8 [B, 3, H, W]}."""
    tokenizer.eval()
    originals = to_float(images.to(tokenizer.device))
    return {
        count: to_uint8(tokenizer.decode(tokenizer.quantize(originals, count).codes)).cpu()
        for count in counts
    }
