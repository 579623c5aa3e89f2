"""What an image costs: floating-point operations, counted without computing."""

from __future__ import annotations

import functools

import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from tok1d.config.schema import TokenizerConfig
from tok1d.models.decoder import Decoder
from tok1d.models.encoder import Encoder
from tok1d.models.linear import LinearTokenizer
from tok1d.models.quantizers import build_quantizer
from tok1d.models.refine import RefiningDecoder

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}  # dense bf16 FLOP/s


@functools.lru_cache(maxsize=256)
def forward_flops(config: TokenizerConfig) -> int:
    """Of encoding and decoding one image with all tokens."""
    dim, K = build_quantizer(config).dim, config.num_latent_tokens
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        image = torch.empty(1, 3, config.image_size, config.image_size)
        if config.encoder == "vit":
            Encoder(config)(image, K)
            Decoder(config, dim)(torch.empty(1, K, dim))
        else:
            linear = LinearTokenizer(config.image_size, K, config.fsq_levels)
            spectrum = linear.analyze(image)
            (spectrum[:, linear.places] @ linear.basis) @ linear.basis.T
            linear.synthesize(spectrum)
        if config.decoder_refine != "none":
            RefiningDecoder(config.decoder_refine, K)(image, K)
    return counter.get_total_flops()


@functools.lru_cache(maxsize=16)
def vgg_flops(size: int) -> int:
    """Of VGG16's features of one image, `size` pixels a side: what LPIPS takes for each image it sees."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        torchvision.models.vgg16().features(torch.empty(1, 3, size, size))
    return counter.get_total_flops()
