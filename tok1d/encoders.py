"""The encoder: a timm ViT that reads the patches of an image, with K learned latent tokens appended.

The latent tokens' outputs are the image's tokens. In an elastic tokenizer token k may depend on the image and
on tokens 1 … k only, never on a later one: so the first k tokens are the same whether or not the others are
computed, a prefix costs no more than its length, and "32 tokens" means one thing.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tok1d.config import TokenizerConfig
from tok1d.vit import VIT_SIZES, grid_positions, init_blocks, prefix_mask


class Encoder(nn.Module):
    def __init__(self, config: TokenizerConfig):
        super().__init__()
        width, depth, heads = VIT_SIZES[config.encoder_size]
        self.vit = VisionTransformer(
            config.image_size, config.patch_size, embed_dim=width, depth=depth, num_heads=heads,
            num_classes=0, global_pool="",
        )  # fmt: skip
        init_random(self.vit, config.grid)
        self.latents = nn.Parameter(torch.randn(config.num_latent_tokens, width))  # distinct from step 0
        self.elastic, self.width = config.elastic, width
        self.register_buffer("mean", torch.tensor([0.5, 0.5, 0.5]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.5, 0.5, 0.5]).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, num_tokens: int) -> Tensor:
        """images [B, 3, H, W] in 0 … 1 -> tokens [B, num_tokens, D]."""
        x = self.vit.patch_embed((images - self.mean) / self.std)  # [B, N, D]
        x = self.vit.norm_pre(self.vit._pos_embed(x))  # [B, 1 + N, D]
        latents = self.latents[:num_tokens].expand(len(x), -1, -1)
        mask = prefix_mask(x.shape[1], num_tokens, x.device) if self.elastic else None
        x = torch.cat([x, latents], dim=1)  # [B, 1 + N + K, D]
        for block in self.vit.blocks:
            x = block(x, attn_mask=mask)
        return self.vit.norm(x[:, -num_tokens:])


def init_random(vit: VisionTransformer, grid: int) -> None:
    """Fill a ViT with random weights, positions and class token of unit scale."""
    init_blocks(vit.blocks)
    with torch.no_grad():
        vit.pos_embed[:, : vit.num_prefix_tokens] = 0
        vit.pos_embed[:, vit.num_prefix_tokens :] = grid_positions(grid, vit.embed_dim)
        nn.init.normal_(vit.cls_token)
