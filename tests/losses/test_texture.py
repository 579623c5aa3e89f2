"""Texture energies: no file, the same numbers everywhere, and a texture is better than a blur."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur
from workbench import ENV, REPO

from tok1d.config.fields import ConfigError
from tok1d.config.parse import parse_train
from tok1d.config.schema import LossConfig
from tok1d.losses.frozen import loss_checkpoints
from tok1d.losses.objective import Objective
from tok1d.losses.texture import TextureLoss, gabor_pairs
from tok1d.models.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def grain(size: int = 64, count: int = 1) -> Tensor:
    """Smooth gray noise of deviation 0.1 about 0, [count, 3, size, size]."""
    noise = gaussian_blur(torch.randn(count, 1, size, size), 5, 0.8).expand(-1, 3, -1, -1)
    return 0.1 * noise / noise.std()


def test_equal_images_are_at_0_and_gradients_reach_the_reconstruction_only():
    loss, images = TextureLoss(), torch.rand(2, 3, 32, 32)
    made, real = images.clone().requires_grad_(), images.clone().requires_grad_()
    loss(made, real).backward()
    assert loss(made, real).item() == 0 and made.grad.isfinite().all() and real.grad is None
    flat = torch.full((2, 3, 32, 32), 0.5, requires_grad=True)
    loss(flat + 0.001 * torch.randn(flat.shape), images).backward()
    assert flat.grad.isfinite().all() and flat.grad.abs().max() > 0
    assert not list(loss.parameters()) and not loss.state_dict(), "nothing learns, nothing is saved"


def test_of_the_same_squared_error_it_prefers_texture_to_blur():
    real, other = grain(), grain()
    blur = torch.full_like(real, 0.5)
    textured = 0.5 + 0.5 * real + 0.75**0.5 * other  # as strong as the original
    real = real + 0.5
    errors = [(made - real).square().mean().item() for made in (blur, textured)]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)
    loss = TextureLoss()
    assert loss(textured, real) < 0.5 * loss(blur, real)


def test_it_hardly_minds_where_in_a_window_a_texture_is():
    real = 0.5 + grain(72)
    here, moved = real[..., 4:-4, 4:-4], real[..., 3:-5, 3:-5]
    loss = TextureLoss()
    assert loss(moved, here) < 0.3 * loss(torch.full_like(here, 0.5), here)


def test_it_grows_with_blur_and_with_noise_and_sees_colors():
    real = 0.5 + grain() + 0.2 * gaussian_blur(torch.randn(1, 3, 64, 64), 21, 4.0)
    loss = TextureLoss()
    blurred = [loss(gaussian_blur(real, 13, s), real).item() for s in (0.5, 1.0, 2.0)]
    noisy = [loss(real + s * torch.randn(real.shape), real).item() for s in (0.02, 0.05, 0.1)]
    assert 0 < blurred[0] < blurred[1] < blurred[2] and 0 < noisy[0] < noisy[1] < noisy[2]
    assert loss(real.mean(1, keepdim=True).expand_as(real), real) > 0.01


def test_filters_see_no_brightness_and_tell_orientations_apart():
    filters = gabor_pairs()  # [24, 7, 7]
    assert filters.sum((1, 2)).abs().max() < 1e-6
    assert torch.allclose(filters.flatten(1).norm(dim=1), torch.ones(24))
    wave = torch.cos(2 * torch.pi * 0.35 * torch.arange(64.0)).expand(1, 3, 64, 64) * 0.2 + 0.5
    across = TextureLoss().features(wave)[0].mean((0, 2, 3))  # of the 12 pairs in luminance
    along = TextureLoss().features(wave.mT)[0].mean((0, 2, 3))
    assert across.argmax() == 0 and along.argmax() == 3 and across[0] > 20 * along[0]


@pytest.mark.parametrize("side", [4, 16, 40, 256])
def test_any_size(side):
    images = torch.rand(1, 3, side, side)
    loss = TextureLoss()
    assert loss(images, images) == 0 and loss(torch.full_like(images, 0.5), images) > 0.1


def test_mean_over_the_batch():
    """So the mean over processes is the mean over the global batch."""
    a, b = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32)
    loss = TextureLoss()
    parts = [loss(a[:2], b[:2]), loss(a[2:], b[2:])]
    assert loss(a, b).item() == pytest.approx(sum(parts).item() / 2, rel=1e-5)


def test_mixed_precision_is_close():
    a, b = torch.rand(2, 2, 3, 32, 32)
    loss = TextureLoss()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(a.bfloat16(), b)
    assert mixed.dtype == torch.float32 and mixed.item() == pytest.approx(loss(a, b).item(), rel=0.02)


def test_every_process_computes_the_same():
    code = (
        "import torch; torch.set_num_threads(1); torch.manual_seed(7)\n"
        "from tok1d.losses.texture import TextureLoss\n"
        "print(TextureLoss()(*torch.rand(2, 2, 3, 32, 32)).item().hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=REPO, env=ENV, check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    }
    torch.manual_seed(7)
    assert found == {TextureLoss()(*torch.rand(2, 2, 3, 32, 32)).item().hex() + "\n"}


def test_it_needs_no_file_and_says_so():
    params = parse_train(dict(perceptual="texture", perceptual_weight=0.1, image_size=16, patch_size=8))
    assert loss_checkpoints(params.train) == []
    objective = Objective(Tokenizer(params.tokenizer), params.train)
    assert objective.provenance["perceptual"]["source"] == "computed, not learned"
    _, terms = objective.reconstruction(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16))
    assert terms["perceptual"] > 0
    with pytest.raises(ConfigError, match=r"needs no file: type perceptual_checkpoint=''"):
        parse_train(dict(perceptual="texture", perceptual_weight=0.1, perceptual_checkpoint="vgg.pth"))
    assert LossConfig(perceptual="texture").perceptual == "texture"
