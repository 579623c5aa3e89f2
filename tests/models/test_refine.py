"""The refining decoder: the identity at first, one network for every token count, any size of image."""

import pytest
import torch

from tok1d.config.schema import TokenizerConfig
from tok1d.models.refine import REFINE_SIZES, RefiningDecoder
from tok1d.models.tokenizer import Tokenizer


@pytest.mark.parametrize("size", REFINE_SIZES)
@pytest.mark.parametrize("side", [16, 36])
def test_it_starts_as_the_identity(size, side):
    images = torch.rand(2, 3, side, side)
    refined = RefiningDecoder(size, max_tokens=64)(images, 8)
    assert torch.equal(refined, images)


def test_it_knows_how_many_tokens_there_were():
    torch.manual_seed(0)
    refine = RefiningDecoder("nano", max_tokens=64)
    for p in refine.parameters():
        torch.nn.init.normal_(p, std=0.1)
    images = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(refine(images, 1), refine(images, 64), atol=1e-3)
    assert "condition.map.0.weight" not in RefiningDecoder("nano").state_dict()


@pytest.mark.parametrize(("what", "learns"), [("refine", {"refine"}), ("decoder", {"decoder", "refine"})])
def test_ids_stay_as_they_are_when_only_the_decoder_learns(what, learns):
    torch.manual_seed(0)
    config = TokenizerConfig(
        image_size=32, patch_size=8, quantizer="vq_ema", codebook_size=64, decoder_refine="nano"
    )
    tokenizer = Tokenizer(config)
    tokenizer.learn_only(what)
    images = torch.rand(4, 3, 32, 32)
    before = tokenizer.eval().encode(images)
    tokenizer.train()
    optimizer = torch.optim.SGD([p for p in tokenizer.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        (tokenizer(images).images - images).square().mean().backward()
        optimizer.step()
    assert {n.split(".")[0] for n, p in tokenizer.named_parameters() if p.requires_grad} == learns
    assert torch.equal(tokenizer.eval().encode(images), before)
