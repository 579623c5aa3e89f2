"""The game between tokenizer and discriminator, and the losses' gradients."""

import pytest
import torch

from tok1d.config.schema import TokenizerConfig, TrainConfig
from tok1d.losses.adversarial import LeCam, hinge_discriminator
from tok1d.losses.objective import Objective, charbonnier
from tok1d.models.tokenizer import Tokenizer

SMALL = TokenizerConfig(
    image_size=32,
    patch_size=8,
    encoder_size="nano",
    decoder_size="nano",
    num_latent_tokens=4,
    elastic=False,
)
GAN = dict(adversarial_weight=0.1, l1_weight=0.5, charbonnier_weight=0.3)


@pytest.fixture
def game():
    """(tokenizer, its objective, images [4, 3, 32, 32], a function that reconstructs)."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(SMALL)
    torch.nn.init.normal_(tokenizer.decoder.last_layer, std=0.02)  # past the first step, where it is 0
    objective = Objective(tokenizer, TrainConfig(**GAN))
    return tokenizer, objective, torch.rand(4, 3, 32, 32)


def gradients(module):
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}


def test_6_the_generator_leaves_nothing_in_the_discriminators_gradient(game):
    """Defect 6 of the repository this project started from."""
    tokenizer, objective, images = game
    output = tokenizer(images)
    loss, _ = objective(output, images, 0, tokenizer.decoder.last_layer)
    loss.backward()
    assert all(grad is None for grad in gradients(objective.discriminator).values())
    tokens = gradients(tokenizer)
    loss, _ = objective.discriminator_loss(output.images, images)
    loss.backward()
    mixed = gradients(objective.discriminator)
    assert all(torch.equal(tokens[name], grad) for name, grad in gradients(tokenizer).items())
    objective.zero_grad()
    logits = objective.discriminator(torch.cat([images, tokenizer(images).images.detach()]))
    hinge_discriminator(*logits.chunk(2)).backward()
    alone = gradients(objective.discriminator)
    assert all(grad.any() for name, grad in alone.items() if name.endswith("weight"))
    for name, grad in alone.items():
        torch.testing.assert_close(mixed[name], grad)


def test_the_gradient_is_that_of_the_losses_written_out(game):
    """By plain autograd: reconstruction + weight x adversarial, with VQGAN's weight at the last layer."""
    tokenizer, objective, images = game
    last = tokenizer.decoder.last_layer
    loss, terms = objective(tokenizer(images), images, 0, last)
    loss.backward()
    ours = gradients(tokenizer)
    tokenizer.zero_grad()
    output = tokenizer(images)
    error = output.images - images
    reconstruction = (
        0.5 * error.abs().mean() + error.square().mean() + 0.3 * charbonnier(output.images, images)
    )
    adversarial = -objective.discriminator(output.images).mean()
    norms = [torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (reconstruction, adversarial)]
    weight = 0.1 * norms[0] / (norms[1] + 1e-4)
    total = reconstruction + weight * adversarial + output.loss
    total.backward()
    for name, grad in gradients(tokenizer).items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-3, atol=1e-6)
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-4)
    assert terms["adaptive_weight"].item() == pytest.approx(weight.item(), rel=1e-3)


def test_start_step_and_ramp():
    objective = Objective(Tokenizer(SMALL), TrainConfig(**GAN, discriminator_start=10, discriminator_ramp=4))
    assert [objective.playing(step) for step in (0, 9, 10, 11)] == [False, False, True, True]
    weights = [objective.adversarial_weight(step) for step in (10, 11, 12, 13, 14, 99)]
    assert weights == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    without = Objective(Tokenizer(SMALL), TrainConfig(**GAN, discriminator_start=10))
    assert without.adversarial_weight(10) == pytest.approx(0.1)


def test_few_tokens_have_a_share_of_the_perceptual_loss():
    config = TrainConfig(l2_weight=0, perceptual_weight=0.5, perceptual_from_tokens=16)
    objective = Objective(Tokenizer(SMALL), TrainConfig())
    objective.config, objective.perceptual = config, lambda a, b: (a - b).abs().mean()
    a, b = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    whole = 0.5 * (a - b).abs().mean()
    for count, share in {None: 1, 64: 1, 16: 1, 4: 1 / 4, 1: 1 / 16}.items():
        torch.testing.assert_close(objective.reconstruction(a, b, count)[0], share * whole)


def test_nothing_is_built_that_is_off():
    objective = Objective(Tokenizer(SMALL), TrainConfig())
    assert not list(objective.parameters()) and not list(objective.buffers())


def test_a_discriminator_learns_to_tell():
    torch.manual_seed(0)
    tokenizer = Tokenizer(SMALL)
    objective = Objective(tokenizer, TrainConfig(**GAN, lecam_weight=0.001))
    optimizer = torch.optim.Adam(objective.discriminator.parameters(), 1e-3)
    images = torch.rand(8, 3, 32, 32)
    fake = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    for _ in range(30):
        loss, terms = objective.discriminator_loss(fake, images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert terms["logits_real"] > 0.5 and terms["logits_fake"] < -0.5 and terms["discriminator"] < 0.5
    assert objective.lecam.means[0] > 0 > objective.lecam.means[1]


def test_lecam_pulls_towards_the_opposite_mean():
    lecam = LeCam(decay=0.0)  # the means are the last batch's
    real, fake = torch.full((2, 3), 2.0, requires_grad=True), torch.full((2, 3), -1.0, requires_grad=True)
    loss = lecam(real, fake)
    assert lecam.means.tolist() == [2.0, -1.0]
    assert loss.item() == pytest.approx(3**2 + 3**2)
    loss.backward()
    assert real.grad.min() > 0 > fake.grad.max()  # descent: real logits down, fake ones up
