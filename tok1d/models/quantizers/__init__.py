"""Quantizers by name: continuous tokens in, tokens of a few possible values out, all under one contract.

The contract is in `base`; what each is, and what it takes, is its row of `tok1d.config.registry.QUANTIZERS`.
Every file of this folder is read, so a class under `@register(name)` in any of them is found.
"""

from __future__ import annotations

import importlib
import pkgutil

from tok1d.config.schema import TokenizerConfig
from tok1d.models.quantizers.base import NO_IDS, QUANTIZER_CLASSES, Quantized, Quantizer
from tok1d.models.quantizers.codebook import VQ, VQEMA, SimVQ
from tok1d.models.quantizers.continuous import KL, SoftVQ
from tok1d.models.quantizers.scalar import FSQ, LFQ

__all__ = [
    "FSQ", "KL", "LFQ", "NO_IDS", "QUANTIZER_CLASSES", "VQ", "VQEMA", "Quantized", "Quantizer",
    "SimVQ", "SoftVQ", "build_quantizer",
]  # fmt: skip

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")


def build_quantizer(config: TokenizerConfig) -> Quantizer:
    """The quantizer of `config`, freshly initialized."""
    return QUANTIZER_CLASSES[config.quantizer].from_config(config)
