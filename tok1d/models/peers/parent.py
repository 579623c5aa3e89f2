"""A one-stage TiTok as a tokenizer of ours, to fine-tune: the same ids and pixels at the first step.

| there | here |
|---|---|
| an encoder with a norm before its blocks | `random_like: clip` |
| its patches' bias, its latent tokens' norm | constants, in our positions and latents |
| images in 0 … 1 | the patch kernels undo CLIP's mean and std |
| plain nearest code, or a VAE | `quantizer: simvq`, whose matrix starts as 1, or `kl` |
| decoder with a class token and a norm before its blocks | `decoder_head: titok` |

Two-stage models, and One-D-Piece, mix the channels of their tokens and make no pixels themselves: no network
of ours agrees with theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tok1d.config.fields import ConfigError
from tok1d.config.peers import PEER, peer_of
from tok1d.config.schema import TokenizerConfig
from tok1d.models.peers import build, read_peer
from tok1d.models.peers.titok import TiTok, TiTokConfig
from tok1d.models.vit import build_vit
from tok1d.models.weights import Weights

OUR_SIZES = {"base": "B", "large": "L"}
BLOCK = {  # a block's parts, there and in timm
    "ln_1": "norm1", "attn.in_proj_": "attn.qkv.", "attn.out_proj": "attn.proj", "ln_2": "norm2",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


def read_peer_parent(name: str) -> tuple[TokenizerConfig, dict[str, Tensor], Weights]:
    """A peer's network and weights as ours. Raises `ConfigError` for one that ours does not agree with."""
    files = read_peer(peer_of(name))
    peer = build(files)
    theirs = peer.config
    if theirs.legacy or not {theirs.encoder_size, theirs.decoder_size} <= OUR_SIZES.keys():
        why = "has two stages" if theirs.legacy else "has a size (small) that ours have not"
        raise ConfigError(
            f"{name} {why}, so no network of ours agrees with it: type init_from={PEER}titok-bl64-vq or "
            f"{PEER}titok-ll32-vae, or measure it with 'tok1d evaluate {name} --data FOLDER'"
        )
    config = our_config(theirs)
    return config, our_state(peer, config), files.weights


def our_config(theirs: TiTokConfig) -> TokenizerConfig:
    codes: dict[str, Any] = {"quantizer": "kl"}
    if theirs.codebook_size:
        codes = {"quantizer": "simvq", "codebook_size": theirs.codebook_size}
    return TokenizerConfig(
        image_size=theirs.image_size, encoder="vit", patch_size=theirs.encoder_patch, random_like="clip",
        encoder_size=OUR_SIZES[theirs.encoder_size], decoder_size=OUR_SIZES[theirs.decoder_size],
        num_latent_tokens=theirs.num_latent_tokens, elastic=False, token_mixing=False,
        decoder_head="titok", codebook_dim=theirs.token_size, **codes,
    )  # fmt: skip


@torch.no_grad()
def our_state(peer: TiTok, config: TokenizerConfig) -> dict[str, Tensor]:
    """Their tensors under our names."""
    encoder: Any = peer.encoder
    decoder: Any = peer.decoder
    with torch.device("meta"):
        _, mean, std = build_vit(config)
    m, s = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    kernel = encoder.patch_embed.weight
    constant = (kernel * m).sum((1, 2, 3)) + encoder.patch_embed.bias  # of (x - m) / s times s kernel
    positions = encoder.positional_embedding.clone()
    positions[1:] += constant
    latents = peer.latent_tokens + encoder.latent_token_positional_embedding
    numbers = config.patch_size**2
    state = {
        "encoder.vit.patch_embed.proj.weight": kernel * s,
        "encoder.vit.cls_token": encoder.class_embedding[None],
        "encoder.vit.pos_embed": positions[None],
        "encoder.latents": encoder.ln_pre(latents),
        "to_codes.weight": encoder.conv_out.weight[:, :, 0, 0], "to_codes.bias": encoder.conv_out.bias,
        "decoder.from_codes.weight": decoder.decoder_embed.weight,
        "decoder.from_codes.bias": decoder.decoder_embed.bias,
        "decoder.class_token": decoder.class_embedding + decoder.positional_embedding[:1],
        "decoder.mask_tokens": decoder.mask_token[0] + decoder.positional_embedding[1:],
        "decoder.token_positions": decoder.latent_token_positional_embedding,
        "decoder.to_pixels.0.weight": channels_first(decoder.ffn[0].weight, numbers),
        "decoder.to_pixels.0.bias": channels_first(decoder.ffn[0].bias, numbers),
        "decoder.blend.weight": 2 * decoder.conv_out.weight,  # ours are in -1 … 1 there
        "decoder.blend.bias": 2 * decoder.conv_out.bias - 1,
    }  # fmt: skip
    for ours, side in (("encoder.vit.", encoder), ("decoder.", decoder)):
        for norm, theirs in (("norm_pre", side.ln_pre), ("norm", side.ln_post)):
            state |= {f"{ours}{norm}.{name}": tensor for name, tensor in theirs.state_dict().items()}
        for name, tensor in side.transformer.state_dict().items():
            for old, new in BLOCK.items():
                name = name.replace(f".{old}", f".{new}")
            state[f"{ours}blocks.{name}"] = tensor
    if config.quantizer == "simvq":
        state["quantizer.fixed"] = peer.quantize.embedding.weight
        state["quantizer.linear.weight"] = torch.eye(config.codebook_dim)
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def channels_first(tensor: Tensor, numbers: int) -> Tensor:
    """[p² 3, …], channels last -> [3 p², …]."""
    return tensor.unflatten(0, (numbers, 3)).transpose(0, 1).flatten(0, 1)
