"""TiTok (arXiv:2406.07550, one-stage: arXiv:2501.07730) and One-D-Piece (arXiv:2501.10064) as their
checkpoints have them: networks of ours whose parts are named as the tensors in those files.

| | codes | from patches to pixels |
|---|---|---|
| two-stage | 4096 of 12 numbers, on the unit sphere | a softmax over 1024 other codes, then `PixelDecoder` |
| one-stage | 8192 of 64 numbers | each patch by itself, then a 3 x 3 convolution |
| VAE | the mean, 16 numbers | the same |
| One-D-Piece | two-stage's, and the first k tokens are an image too | two-stage's |

A two-stage encoder (`legacy`) reads its K outputs of width W, [K, W] in memory, as [W, K]: token k is made of
a few channels of *all* K outputs. So it was trained, and so it must be computed; nothing that is seen at
output k says anything of token k.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tok1d.models.peers.pixel_decoder import CODE_DIM, CODES, PixelDecoder

SIZES = {"small": (512, 8), "base": (768, 12), "large": (1024, 24)}  # width, depth
AT_ONCE = 8  # images in the pixel decoder, whose activations at full resolution are large
HEAD = 64  # dimensions of an attention head, in all sizes


class TiTokConfig(NamedTuple):
    """What the keys and shapes of a checkpoint say, and its config.json."""

    encoder_size: str  # small, base, large
    decoder_size: str
    num_latent_tokens: int
    token_size: int  # dimensions of a code
    codebook_size: int  # 0: a VAE
    image_size: int  # pixels
    encoder_patch: int
    decoder_patch: int
    unit_codes: bool  # codes and what is compared with them have length 1
    legacy: bool  # two-stage
    elastic: bool  # the first k tokens are an image too: One-D-Piece

    @property
    def encoder_grid(self) -> int:
        return self.image_size // self.encoder_patch

    @property
    def decoder_grid(self) -> int:
        return self.image_size // self.decoder_patch

    @property
    def bits_per_token(self) -> float:
        """Of its id, or of a VAE's token the bits of its float32 numbers, which nobody would store."""
        return math.log2(self.codebook_size) if self.codebook_size else 32.0 * self.token_size

    @property
    def token_counts(self) -> tuple[int, ...]:
        """1, 2, 4 … K where any count will do, K alone otherwise."""
        K = self.num_latent_tokens
        return tuple(sorted({*(2**i for i in range(K.bit_length())), K})) if self.elastic else (K,)


class TiTok(nn.Module):
    """A peer as `tok1d.evaluation.measured` wants it. Images are float [B, 3, S, S] in 0 … 1."""

    prefix = True  # tokens 1 … k are the same whatever follows them
    input_range = "0 … 1"
    name = "TiTok"
    report: dict[str, Any] = {}  # noqa: RUF012  # see `tok1d.models.peers.report`

    def __init__(self, config: TiTokConfig):
        super().__init__()
        self.config = config
        width, _ = SIZES[config.encoder_size]
        self.latent_tokens = nn.Parameter(torch.empty(config.num_latent_tokens, width))
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        if config.codebook_size:
            self.quantize = Codebook(config.codebook_size, config.token_size)
        if config.legacy:
            self.pixel_quantize, self.pixel_decoder = Codebook(CODES, CODE_DIM), PixelDecoder()
        self.codebook_size, self.bits_per_token = config.codebook_size, config.bits_per_token
        self.token_counts = config.token_counts

    def encode(self, images: Tensor, num_tokens: int | None = None) -> Tensor:
        """images [B, 3, S, S] -> ids [B, k] int64; of a VAE the means [B, K, T]. Raises `ValueError`."""
        K, S = self.config.num_latent_tokens, self.config.image_size
        if images.ndim != 4 or images.shape[1:] != (3, S, S) or not images.is_floating_point():
            raise ValueError(f"images are float [B, 3, {S}, {S}] here, got {images.dtype} {[*images.shape]}")
        k = K if num_tokens is None else num_tokens
        if not (1 <= k <= K if self.config.elastic else k == K):
            raise ValueError(f"num_tokens={k} is no count of this tokenizer: give one of {self.token_counts}")
        z = self.encoder(images, self.latent_tokens)  # [B, K, T], a VAE's 2 T
        if not self.config.codebook_size:
            return z[..., : self.config.token_size]
        return nearest(z[:, :k], self.quantize.embedding.weight, self.config.unit_codes)

    def decode(self, codes: Tensor) -> Tensor:
        """ids [B, k] int64, or a VAE's means [B, K, T] -> images [B, 3, S, S], about 0 … 1, not clamped."""
        if self.config.codebook_size:
            codes = self.quantize.embedding(codes)  # [B, k, T]
            codes = F.normalize(codes, dim=-1) if self.config.unit_codes else codes
        x = self.decoder(codes)
        if not self.config.legacy:
            return x
        mixed = torch.einsum("bnhw,nd->bdhw", x.softmax(1), self.pixel_quantize.embedding.weight)
        return torch.cat([self.pixel_decoder(part) for part in mixed.split(AT_ONCE)])

    @property
    def card(self) -> dict[str, Any]:
        """What the card of an evaluation says of it."""
        pixels = "softmax over 1024 codes, MaskGIT VQGAN" if self.config.legacy else "linear patches, 3 x 3"
        return {
            "format": "TiTok, two-stage" if self.config.legacy else "TiTok, one-stage",
            "bits_per_token": self.bits_per_token, "input_range": self.input_range, "decoder": pixels,
        }  # fmt: skip

    @property
    def unexplained(self) -> str:
        """Why nothing can be said of what a single token means; empty if it can."""
        if not self.config.legacy:
            return ""
        K = self.config.num_latent_tokens
        channels = SIZES[self.config.encoder_size][0] // K
        return (
            f"each of its tokens is made of {channels} channels of all {K} latent tokens, "
            f"so what a latent token looks at says nothing of a token"
        )


def nearest(z: Tensor, codebook: Tensor, unit: bool) -> Tensor:
    """z [B, k, T], codebook [V, T] -> the id of the nearest code, [B, k], in float32."""
    z, codebook = z.float(), codebook.float()
    if unit:
        z, codebook = F.normalize(z, dim=-1), F.normalize(codebook, dim=-1)
    return (codebook.square().sum(1) - 2 * z @ codebook.T).argmin(-1)


class Codebook(nn.Module):
    def __init__(self, size: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(size, dim)


class Transformer(nn.Module):
    """What encoder and decoder share: a class token, a grid and the tokens, through the blocks."""

    def __init__(self, size: str, grid: int, tokens: int):
        super().__init__()
        width, depth = SIZES[size]
        self.class_embedding = nn.Parameter(torch.empty(1, width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + grid**2, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleList(Block(width) for _ in range(depth))

    def sequence(self, patches: Tensor, tokens: Tensor) -> Tensor:
        """patches [B, N, W] and tokens [B, k, W] -> [B, 1 + N + k, W], before the last norm."""
        B, k, _ = tokens.shape
        grid = torch.cat([self.class_embedding.expand(B, 1, -1), patches], 1) + self.positional_embedding
        x = self.ln_pre(torch.cat([grid, tokens + self.latent_token_positional_embedding[:k]], 1))
        for block in self.transformer:
            x = block(x)
        return x


class Encoder(Transformer):
    def __init__(self, config: TiTokConfig):
        super().__init__(config.encoder_size, config.encoder_grid, config.num_latent_tokens)
        width, patch = SIZES[config.encoder_size][0], config.encoder_patch
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        numbers = config.token_size if config.codebook_size else 2 * config.token_size  # mean, log variance
        self.conv_out = nn.Conv2d(width, numbers, 1)
        self.legacy = config.legacy

    def forward(self, images: Tensor, latents: Tensor) -> Tensor:
        """images [B, 3, S, S], latents [K, W] -> [B, K, T]."""
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)  # [B, N, W]
        x = self.sequence(patches, latents.expand(len(images), -1, -1))
        x = self.ln_post(x[:, -len(latents) :])  # [B, K, W]
        x = x.reshape(len(x), -1, len(latents)) if self.legacy else x.transpose(1, 2)  # [B, W, K]
        return self.conv_out(x[..., None])[..., 0].transpose(1, 2)


class Decoder(Transformer):
    def __init__(self, config: TiTokConfig):
        super().__init__(config.decoder_size, config.decoder_grid, config.num_latent_tokens)
        width, patch, self.grid = SIZES[config.decoder_size][0], config.decoder_patch, config.decoder_grid
        self.decoder_embed = nn.Linear(config.token_size, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        if config.legacy:
            self.ffn = nn.Sequential(
                nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, CODES, 1)
            )
            self.conv_out: nn.Module = nn.Identity()
        else:
            self.ffn = nn.Sequential(nn.Conv2d(width, 3 * patch**2, 1), Pixels(patch))
            self.conv_out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        """codes [B, k, T] -> images [B, 3, S, S], or if legacy logits [B, 1024, h, w]."""
        N = self.grid**2
        x = self.sequence(self.mask_token.expand(len(codes), N, -1), self.decoder_embed(codes))
        x = self.ln_post(x[:, 1 : 1 + N])  # [B, N, W]
        return self.conv_out(self.ffn(x.transpose(1, 2).unflatten(2, (self.grid, self.grid))))


class Pixels(nn.Module):
    """[B, p p 3, h, w], channels last within a patch -> [B, 3, h p, w p]."""

    def __init__(self, patch: int):
        super().__init__()
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        B, _, h, w = x.shape
        p = self.patch
        x = x.view(B, p, p, 3, h, w).permute(0, 3, 4, 1, 5, 2)  # [B, 3, h, p, w, p]
        return x.reshape(B, 3, h * p, w * p)


class Block(nn.Module):
    """Pre-norm attention and MLP (exact GELU), under the names of OpenAI's CLIP."""

    def __init__(self, width: int):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width)
        self.ln_2, self.mlp = nn.LayerNorm(width), MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Attention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, n, W] -> the same shape."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(2, (3, -1, HEAD))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, heads, n, 64] each
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))
