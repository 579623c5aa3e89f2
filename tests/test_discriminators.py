"""What the adversarial loss relies on: shapes, no batch statistics, and networks that learn to tell."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.functional import to_tensor

from tok1d.config import LossConfig
from tok1d.discriminators import PatchGAN, build_discriminator
from tok1d.toy_roads import draw


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def scenes(count: int, side: int) -> torch.Tensor:
    return torch.stack([to_tensor(draw(i, side)) for i in range(count)])


def blurred(images: torch.Tensor) -> torch.Tensor:
    return F.interpolate(F.avg_pool2d(images, 4), scale_factor=4.0, mode="bilinear")


# ----------------------------------------------------------------------------------------------- PatchGAN


def test_patchgan_is_the_seeds():
    """Channels, kernels and strides of VQGAN's, at its 256 px: 30 x 30 logits of 70 x 70 pixels each."""
    net = build_discriminator(LossConfig())
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64, 128, 256, 512, 1]
    assert [c.stride[0] for c in convs] == [2, 2, 2, 1, 1] and {c.kernel_size for c in convs} == {(4, 4)}
    images = torch.rand(1, 3, 256, 256, requires_grad=True)
    assert net(images).shape == (1, 1, 30, 30)
    for m in net.modules():  # without norms, which see the whole image
        if isinstance(m, nn.GroupNorm):
            m.forward = lambda x: x
    (seen,) = torch.autograd.grad(net(images)[0, 0, 15, 15], images)
    rows = seen.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


@pytest.mark.parametrize("side", [8, 16, 24, 48])
def test_patchgan_takes_any_size(side):
    assert PatchGAN()(torch.rand(2, 3, side, side)).numel() >= 2


@torch.no_grad()
def test_no_image_knows_of_the_others_in_its_batch():
    """Else two processes would not compute what one does."""
    net = build_discriminator(LossConfig()).train()
    images = scenes(3, 32)
    assert torch.allclose(net(images)[:1], net(images[:1]), atol=1e-5)


def test_patchgan_learns_to_tell_blurred_from_sharp():
    net = PatchGAN()
    optimizer = torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.9))
    real = scenes(8, 32)
    for _ in range(30):
        loss = F.relu(1 - net(real)).mean() + F.relu(1 + net(blurred(real))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = scenes(16, 32)[8:]
    with torch.no_grad():
        assert net(unseen).mean() > net(blurred(unseen)).mean() + 0.5
