"""What a user relies on: shapes, ranges, the prefix property, ids that decode to what forward shows."""

import math

import pytest
import torch

from tok1d.config.schema import TokenizerConfig
from tok1d.models.quantizers import QUANTIZER_CLASSES
from tok1d.models.tokenizer import Tokenizer

TINY = dict(
    image_size=32, patch_size=8, encoder_size="nano", decoder_size="nano", num_latent_tokens=8, elastic=False
)


def build(**changes) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(**TINY | changes)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("tokens", [1, 8, 256])  # 256 tokens from a 16-patch grid are fine
@torch.no_grad()
def test_shapes_and_ids(images, quantizer, elastic, tokens):
    tokenizer = build(quantizer=quantizer, elastic=elastic, num_latent_tokens=tokens)
    ids = tokenizer.encode(images)
    assert ids.shape == (2, tokens) and ids.dtype == torch.int64
    assert ids.min() >= 0 and ids.max() < tokenizer.quantizer.codebook_size
    output = tokenizer(images)
    assert output.images.shape == images.shape and torch.equal(output.ids, ids)
    assert torch.allclose(tokenizer.decode_ids(ids), output.images.clamp(0, 1), atol=1e-5)


@torch.no_grad()
def test_a_prefix_is_the_same_however_many_tokens_are_computed(images):
    tokenizer = build(elastic=True)
    every = tokenizer.encode(images)
    for count in range(1, 9):
        assert torch.equal(tokenizer.encode(images, count), every[:, :count])
        short = tokenizer(images, count).images
        assert torch.allclose(tokenizer.decode_ids(every[:, :count]), short.clamp(0, 1), atol=1e-5)


@torch.no_grad()
def test_tokens_of_a_fixed_tokenizer_do_see_each_other(images):
    tokenizer = build()
    before = tokenizer.encoder(images, 8)
    tokenizer.encoder.latents[-1] += torch.randn(128)
    assert not torch.allclose(before[:, 0], tokenizer.encoder(images, 8)[:, 0], atol=1e-4)


def test_latent_tokens_are_distinct_from_step_0():
    latents = build(num_latent_tokens=64).encoder.latents
    assert torch.cdist(latents, latents).fill_diagonal_(9).min() > 1


def test_every_parameter_gets_a_gradient(images):
    for quantizer in QUANTIZER_CLASSES:
        tokenizer = build(quantizer=quantizer).train()
        output = tokenizer(images, entropy_weight=0.1)
        ((output.images - images).square().mean() + output.loss).backward()
        assert [n for n, p in tokenizer.named_parameters() if p.grad is None] == []


def test_saved_and_loaded_is_the_same(tmp_path, images):
    tokenizer = build(quantizer="vq", elastic=True)
    tokenizer.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} >= {"config.json", "model.safetensors", "README.md"}
    assert loaded.config == tokenizer.config
    with torch.no_grad():
        assert torch.equal(loaded(images, 3).images, tokenizer(images, 3).images)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_pixels_that_are_no_numbers_have_no_ids(images, odd):
    tokenizer = build()
    spoilt = images.clone()
    spoilt[0, 1, 2, 3] = odd
    with pytest.raises(ValueError, match="replace what is not finite"):
        tokenizer.encode(spoilt)
    assert tokenizer.encode(images).min() >= 0


def test_counts_that_cannot_be_had_say_what_to_type(images):
    with pytest.raises(ValueError, match="elastic=true"):
        build().encode(images, 4)
    with pytest.raises(ValueError, match=r"1 … 8"):
        build(elastic=True).encode(images, 9)


@pytest.mark.parametrize("tokens", [16, 256])
@torch.no_grad()
def test_full_size(tokens):
    """256 px, ViT-S/16, the reference's token counts, without change."""
    config = TokenizerConfig(
        image_size=256, encoder_size="S", decoder_size="S", elastic=False, num_latent_tokens=tokens
    )
    tokenizer = Tokenizer(config).eval()
    output = tokenizer(torch.rand(1, 3, 256, 256))
    assert output.images.shape == (1, 3, 256, 256) and output.ids.shape == (1, tokens)


# ---- what cannot be meant ----


@pytest.fixture(scope="module", params=["vit", "linear"])
def tokenizer(request) -> Tokenizer:
    torch.manual_seed(0)
    config = TokenizerConfig(image_size=32, encoder=request.param, patch_size=8, num_latent_tokens=8)
    tokenizer = Tokenizer(config).eval()
    if request.param == "linear":
        tokenizer.encoder.fit(list((torch.rand(20, 3, 32, 32) * 255).byte()))
    return tokenizer


def test_uint8_images_have_the_ids_of_floats(tokenizer):
    images = (torch.rand(3, 3, 32, 32) * 255).byte()
    assert torch.equal(tokenizer.encode(images), tokenizer.encode(images / 255))
    assert torch.equal(tokenizer.encode_codes(images).codes, tokenizer.encode_codes(images / 255).codes)
    assert torch.equal(tokenizer(images).images, tokenizer(images / 255).images)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x * 255, "in 0 … 1, got 0.0"),
        (lambda x: x * 255, "type images / 255"),
        (lambda x: x * 2 - 1, "type (images + 1) / 2"),
        (lambda x: torch.where(x > 0.9, torch.nan, x), "replace what is not finite"),
        (lambda x: (x * 255).long(), "float or uint8, got int64 [3, 3, 32, 32]: type images.float() / 255"),
        (lambda x: x[0], "[B, 3, 32, 32] here, got float32 [3, 32, 32]: type images[None]"),
        (lambda x: x.permute(0, 2, 3, 1), "type images.permute(0, 3, 1, 2)"),
        (lambda x: x[..., :24], "resize and crop them to 32 pixels"),
        (lambda x: x[:, :1], "got float32 [3, 1, 32, 32]"),
        (lambda x: x[:0], "got float32 [0, 3, 32, 32]"),
        (lambda x: x.numpy(), "got ndarray: type torch.as_tensor(images)"),
    ],
)
@pytest.mark.parametrize("method", ["encode", "encode_codes", "forward"])
def test_images_that_cannot_be_meant_are_one_sentence(tokenizer, method, change, said):
    with pytest.raises(ValueError) as caught:
        getattr(tokenizer, method)(change(torch.rand(3, 3, 32, 32)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (torch.full((2, 8), 64000), "ids are 0 … 63999 here, got 64000 … 64000"),
        (torch.full((2, 8), -1), "got -1 … -1: decode ids of this tokenizer"),
        (torch.zeros(2, 8), "int64 [B, k], got float32 [2, 8]"),
        (torch.zeros(8, dtype=torch.long), "got int64 [8]"),
        (torch.zeros(2, 9, dtype=torch.long), "num_tokens=9 is not in 1 … 8"),
        ([[1, 2]], "got list: give them as encode does"),
    ],
)
def test_ids_of_no_tokenizer_like_this_are_one_sentence(tokenizer, ids, said):
    with pytest.raises(ValueError) as caught:
        tokenizer.decode_ids(ids)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["decode", "decode_unclamped"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda codes: codes[0], "got float32 [8,"),
        (lambda codes: codes[..., 1:], "give those of encode_codes"),
        (lambda codes: codes.repeat(1, 2, 1), "num_tokens=16 is not in 1 … 8"),
        (lambda codes: codes[:, :0], "num_tokens=0 is not in 1 … 8"),
        (lambda codes: codes.tolist(), "got list"),
    ],
)
def test_codes_of_no_tokenizer_like_this_are_one_sentence(tokenizer, method, change, said):
    with pytest.raises(ValueError) as caught:
        getattr(tokenizer, method)(change(tokenizer.encode_codes(torch.rand(2, 3, 32, 32)).codes))
    assert said in str(caught.value) and "\n" not in str(caught.value)
