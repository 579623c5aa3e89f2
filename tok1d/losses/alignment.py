"""Alignment to a frozen backbone: the tokenizer is to know what a network that understands images knows.

    loss = alignment(output, images)     # the tokenizer's Reconstruction, images [B, 3, H, W] in 0 … 1

The loss is 1 - the cosine, in 0 … 2, between the backbone's feature of each patch and a prediction of it by a
small MLP (three layers of 2048, as in REPA, arXiv:2410.06940), from

- `decoder`: the same patch's feature after the decoder's middle block (GigaTok, arXiv:2504.08736);
- `tokens`: a learned mix of the tokens' codes for that patch. VA-VAE (arXiv:2501.01423) aligns latents on the
  backbone's own grid; 1D tokens lie on none, so each patch learns which of them to read, as in the decoder's
  `token_mixing`. SoftVQ-VAE (arXiv:2412.10958) fixes that mix by repeating each token; and a mean over all
  tokens and all patches would leave most of what the backbone knows unused.

The backbone sees the images in patches of its own size, as many as the tokenizer has: neither patch kernel
nor features are resampled. 256 px in patches of 16 become 224 px in DINOv2's patches of 14.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.config.registry import timm_name
from tok1d.config.schema import LossConfig, TokenizerConfig
from tok1d.losses.frozen import ALIGN_ASKED, Frozen, frozen_encoder
from tok1d.models.encoder import Encoder
from tok1d.models.tokenizer import Reconstruction, Tokenizer
from tok1d.models.vit import mixing_matrix

HIDDEN = 2048  # width of the MLP


class Backbone(nn.Module):
    """Images [B, 3, H, W] in 0 … 1 -> a pretrained ViT's patch features [B, N, D] on the tokenizer's grid."""

    def __init__(self, encoder: Encoder, side: int):
        super().__init__()
        self.encoder, self.side = encoder, side

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.side:
            images = F.interpolate(images, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        return self.encoder.patch_features(images)


class Alignment(nn.Module):
    """`head` learns; the backbone is frozen, and `provenance` says which it is."""

    def __init__(self, backbone: Backbone, provenance: dict[str, str], width: int, mix: nn.Parameter | None):
        super().__init__()
        self.backbone, self.provenance, self.mix = Frozen(backbone), provenance, mix
        self.head = nn.Sequential(
            nn.Linear(width, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, backbone.encoder.width),
        )

    def forward(self, output: Reconstruction, images: Tensor) -> Tensor:
        """The mean over patches and batch; scalar."""
        features = output.features  # [B, N, D]
        if self.mix is not None:
            features = self.mix[:, : output.codes.shape[1]] @ output.codes  # [B, N, dim]
        predicted = self.head(features).float()
        return 1 - F.cosine_similarity(predicted, self.backbone(images).float(), dim=-1).mean()


def build_alignment(config: LossConfig, tokenizer: Tokenizer) -> Alignment:
    """The loss for this tokenizer, its head random. Raises `ConfigError` if the backbone cannot be had."""
    ours = tokenizer.config
    own_patch = re.search(r"patch(\d+)", timm_name(config.align_to, config.align_size))
    patch = int(own_patch[1]) if own_patch else ours.patch_size
    side = ours.grid * patch
    theirs = TokenizerConfig(
        encoder_init=config.align_to,
        encoder_size=config.align_size,
        num_latent_tokens=1,
        elastic=False,
        token_mixing=False,
    ).model_copy(update=dict(image_size=side, patch_size=patch))
    encoder, provenance = frozen_encoder(theirs, config.align_checkpoint, ALIGN_ASKED)
    backbone = Backbone(encoder, side)
    if config.align_features == "decoder":
        return Alignment(backbone, provenance, tokenizer.decoder.from_codes.out_features, None)
    mix = mixing_matrix(ours.grid**2, ours.num_latent_tokens)  # [N, K]
    return Alignment(backbone, provenance, tokenizer.quantizer.dim, mix)
