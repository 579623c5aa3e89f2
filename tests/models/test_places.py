"""Tokens at chosen places are decoded as if there were no others."""

import pytest
import torch
from priors import linear_tokenizer

from tok1d.config.schema import TokenizerConfig
from tok1d.models.tokenizer import Tokenizer


@pytest.fixture(params=["linear", "vit"])
def tokenizer(request, tmp_path):
    if request.param == "linear":
        return linear_tokenizer(tmp_path)
    torch.manual_seed(0)
    sizes = dict(encoder_size="nano", decoder_size="nano", decoder_refine="nano")
    config = TokenizerConfig(encoder="vit", image_size=16, patch_size=8, num_latent_tokens=4, **sizes)
    tokenizer = Tokenizer(config)
    for parameter in tokenizer.decoder.to_pixels.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return tokenizer.eval()


@torch.no_grad()
def test_the_first_places_are_a_prefix_and_a_dropped_token_says_nothing(tokenizer):
    codes = tokenizer.encode_codes(torch.rand(3, 3, 16, 16)).codes
    first = torch.arange(4).expand(3, -1)
    whole = tokenizer.decode_unclamped(codes).images
    assert torch.allclose(tokenizer.decode_unclamped(codes, first).images, whole, atol=1e-5)
    prefix = tokenizer.decode_unclamped(codes[:, :2]).images
    assert torch.allclose(tokenizer.decode_unclamped(codes[:, :2], first[:, :2]).images, prefix, atol=1e-5)

    kept = torch.tensor([[0, 1, 3], [1, 2, 3], [0, 2, 3]])  # another token is dropped in each row
    less = tokenizer.decode_unclamped(codes.gather(1, kept[..., None].expand(-1, -1, codes.shape[2])), kept)
    for i in range(3):
        alone = tokenizer.decode_unclamped(codes[i : i + 1, kept[i]], kept[i : i + 1]).images
        assert torch.allclose(less.images[i], alone[0], atol=1e-5)
        assert not torch.allclose(less.images[i], whole[i], atol=1e-4)
