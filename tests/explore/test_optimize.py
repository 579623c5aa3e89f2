"""Edits without a generator: known pixels stay, holes are filled, tokens move towards another image."""

import pytest
import torch
from evaluating import build, roads
from priors import linear_tokenizer
from torch import Tensor
from workbench import REPO

from tok1d.config.fields import ConfigError
from tok1d.data.dataset import to_float, to_uint8
from tok1d.evaluation.metrics.images import psnr
from tok1d.explore.opened import SHIPPED, open_tokenizer
from tok1d.explore.optimize import NOISE, LinearSpace, inpaint, resemble
from tok1d.losses.perceptual import VGG16, PerceptualLoss


def middle(size: int) -> Tensor:
    hole = torch.zeros(size, size, dtype=torch.bool)
    hole[size // 4 : -size // 4, size // 4 : -size // 4] = True
    return hole


def inside(image: Tensor, original: Tensor, hole: Tensor) -> float:
    """PSNR of uint8 images in the hole, dB."""
    return psnr(
        to_float(image)[None, :, hole][..., None], to_float(original)[None, :, hole][..., None]
    ).item()


def test_the_shipped_tokenizer_fills_holes_better_than_the_mean_color():
    tokenizer, hole, gains = open_tokenizer(REPO / SHIPPED), middle(64), []
    for image in roads(6, 64, start=20_000).center_crops(range(6)):
        *_, last = inpaint(tokenizer, image, hole, steps=2)
        assert torch.equal(last.image[:, ~hole], image[:, ~hole])
        assert torch.equal(last.image[:, hole], last.decoded[:, hole])
        mean = image[:, ~hole].float().mean(1).round().to(torch.uint8)[:, None, None].expand_as(image)
        gains.append(inside(last.image, image, hole) - inside(mean, image, hole))
    assert sum(gains) / len(gains) > 2


@pytest.mark.parametrize("quantizer", ["fsq", "vq", "simvq", "softvq", "kl", "linear"])
def test_any_tokenizer_comes_closer_and_its_ids_are_the_picture(quantizer, tmp_path):
    tokenizer = linear_tokenizer(tmp_path) if quantizer == "linear" else build(quantizer=quantizer)
    size = tokenizer.config.image_size
    image, target = roads(2, size).center_crops(range(2))
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    filled = list(inpaint(tokenizer, image, middle(size), steps=12))
    moved = list(resemble(tokenizer, image, target, steps=12))
    assert moved[-1].loss < moved[0].loss
    for edits in (filled, moved):
        assert [(e.step, e.steps) for e in edits] == [(i, 12) for i in range(13)]
        losses = [e.loss for e in edits]
        assert losses == sorted(losses, reverse=True)
        last = edits[-1]
        assert (last.ids is None) == (quantizer == "kl")
        if quantizer not in ("kl", "softvq"):  # those have continuous tokens
            with torch.no_grad():
                assert torch.equal(to_uint8(tokenizer.decode_ids(last.ids[None]))[0], last.decoded)
    assert all(torch.equal(before[name], value) for name, value in tokenizer.state_dict().items())
    assert all(parameter.grad is None for parameter in tokenizer.parameters())


def test_fewer_tokens_and_another_distance():
    tokenizer = build()
    image, target = roads(2).center_crops(range(2))
    seen = []

    def distance(decoded: Tensor, aim: Tensor) -> Tensor:
        seen.append((tuple(decoded.shape), torch.equal(aim[0], to_float(target))))
        return (decoded - aim).abs().mean()

    *_, last = resemble(tokenizer, image, target, 1, num_tokens=3, distance=distance)
    assert last.ids.shape == (3,) and seen == [((1, 3, 32, 32), True)] * 2

    torch.manual_seed(0)
    first, *_, last = resemble(tokenizer, image, target, 4, distance=PerceptualLoss(VGG16(1), [], {}))
    assert last.loss < first.loss


def test_a_linear_code_starts_from_what_is_expected_of_gaussians(tmp_path):
    """As by solving for all coefficients at once."""
    space, hole = LinearSpace(linear_tokenizer(tmp_path), 4), middle(16)
    image = to_float(roads(1, 16).center_crops([0]))
    found, prior = space.given(image, hole)
    known = ~hole
    columns = torch.eye(found.shape[1])
    atoms = space.code.synthesize(space.spectrum(columns))[:, :, known].flatten(1)  # [columns, pixels]
    rest = (image - space.code.synthesize(space.code.mean[None]))[:, :, known].flatten(1)
    wanted = torch.linalg.solve(atoms @ atoms.T + NOISE**2 * columns, atoms @ rest[0])
    assert torch.allclose(found[0], wanted * space.owned, atol=1e-3) and not prior.any()


def test_a_hole_must_be_a_part_of_the_image():
    tokenizer, image = build(), roads(1).center_crops([0])[0]
    for hole in (middle(16), torch.zeros(32, 32, dtype=torch.bool), torch.ones(32, 32, dtype=torch.bool)):
        with pytest.raises(ConfigError, match=r"type hole = torch\.zeros\(32, 32"):
            next(inpaint(tokenizer, image, hole))
    with pytest.raises(ConfigError, match=r"type open_photo\(path, 32\)"):
        next(inpaint(tokenizer, image.float(), middle(32)))
    with pytest.raises(ConfigError, match="counts up to num_latent_tokens=8"):
        next(inpaint(tokenizer, image, middle(32), num_tokens=9))
