"""The same step, sooner or in less memory: compiled blocks, recomputed activations, channels-last images.

Nothing here changes what is computed beyond rounding. bf16 is `mixed_precision`, accumulation `accumulate`,
attention is PyTorch's own (SDPA) through timm, and both optimizers are fused.
"""

from __future__ import annotations

import torch
from torch import nn

from tok1d.config.schema import TrainConfig
from tok1d.losses.objective import Objective
from tok1d.models.tokenizer import Tokenizer

VARIANTS = 64  # sequence lengths (an elastic tokenizer's token counts) that one block is compiled for


def tune(model: Tokenizer, objective: Objective, config: TrainConfig) -> None:
    """Prepare a training's networks in place; to be called once, before they are wrapped or used."""
    model.encoder.recompute = model.decoder.recompute = config.checkpoint_activations
    for module in (model.decoder.to_pixels, objective.perceptual, objective.discriminator):
        if module is not None:
            module.to(memory_format=torch.channels_last)
    if config.compile:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
        for block in [*model.encoder.vit.blocks, *model.decoder.blocks]:
            compile_block(block)


def compile_block(block: nn.Module) -> None:
    """Compile one transformer block. All blocks of a size share the code that the first one's compilation
    made, so this takes seconds where compiling whole networks takes minutes.
    """
    block.compile(dynamic=False)
