"""Each quantizer for itself: against its paper, and against vector-quantize-pytorch where that has it."""

import pytest
import torch
import torch.nn.functional as F
import vector_quantize_pytorch as library
from quantizer_cases import build, inputs
from torch import nn

from tok1d.models.quantizers import KL, LFQ, VQ, VQEMA, SimVQ, SoftVQ


def test_vq_loss_pulls_codes_to_inputs_and_inputs_to_codes():
    """‖sg[z] - e‖² moves the codebook, 0.25 ‖z - sg[e]‖² moves the encoder."""
    torch.manual_seed(0)
    quantizer, z = VQ(8, 4, commitment_weight=0.25), torch.randn(1, 16, 4, requires_grad=True)
    _, ids, loss, _ = quantizer(z)
    loss.backward()
    unit, codebook = F.normalize(z.detach(), dim=-1), F.normalize(quantizer.codebook.detach(), dim=-1)
    mse = F.mse_loss(unit, codebook[ids]).item()
    assert loss.item() == pytest.approx(1.25 * mse, rel=1e-5)
    e = quantizer.codebook.detach().clone().requires_grad_()
    F.mse_loss(F.embedding(ids, F.normalize(e, dim=-1)), unit).backward()
    assert torch.allclose(quantizer.codebook.grad, e.grad, atol=1e-6), "weight 1 on the codebook's term"
    z2 = z.detach().clone().requires_grad_()
    (0.25 * F.mse_loss(F.normalize(z2, dim=-1), codebook[ids])).backward()
    assert torch.allclose(z.grad, z2.grad, atol=1e-6), "weight 0.25 on the commitment"


@pytest.mark.parametrize("kind", [VQ, SoftVQ])
def test_entropy_loss_rewards_sure_tokens_and_a_used_codebook(kind):
    quantizer = kind(4, 4)
    quantizer.codebook.data = torch.eye(4)
    spread, same = torch.eye(4)[None], torch.eye(4)[:1].expand(4, 4)[None]
    unsure = torch.ones(1, 4, 4)

    def entropy(z):
        return (quantizer(z, 1.0).loss - quantizer(z).loss).item()

    assert entropy(spread) == pytest.approx(-torch.log(torch.tensor(4.0)).item(), abs=1e-3)
    assert entropy(same) == pytest.approx(0, abs=1e-3)
    assert entropy(unsure) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", [VQ, VQEMA, SimVQ])
def test_rotation_trick_turns_and_scales_gradients_as_inputs_to_codes(kind):
    """The Jacobian of a code by its input is a scaled rotation that takes the input there; see also
    vector-quantize-pytorch's own, which this uses."""
    torch.manual_seed(0)
    quantizer, z = kind(16, 5, rotation_trick=True).eval(), F.normalize(torch.randn(1, 1, 5), dim=-1)
    jacobian = torch.autograd.functional.jacobian(lambda x: quantizer(x).codes.flatten(), z).view(5, 5)
    code = quantizer(z).codes.flatten()
    if kind is SimVQ:
        turned = jacobian
    else:  # the gradient goes on through the input's normalisation, which forgets its part along z
        along = torch.outer(code, z.flatten())
        turned = jacobian + along
        assert (jacobian @ z.flatten()).abs().max() < 1e-6
    assert torch.allclose(turned @ z.flatten(), code, atol=1e-6)
    assert torch.allclose(turned @ turned.T, code.norm() ** 2 * torch.eye(5), atol=1e-6)
    assert torch.linalg.det(turned) > 0


def test_vq_ema_is_the_librarys_while_no_code_is_dead():
    torch.manual_seed(0)
    ours = VQEMA(8, 4, commitment_weight=0.25)
    theirs = library.VectorQuantize(
        4, 8, use_cosine_sim=True, decay=0.99, commitment_weight=0.25, rotation_trick=False
    )
    ours.shares.copy_(theirs._codebook.cluster_size[0] / 40)
    ours.sums.copy_(theirs._codebook.embed_avg[0] / 40)
    for _ in range(20):
        z = torch.randn(4, 10, 4)
        codes, ids, loss, _ = ours(z)
        their_codes, their_ids, their_loss = theirs(z)
        assert torch.equal(ids, their_ids) and torch.allclose(codes, their_codes, atol=1e-5)
        assert loss.item() == pytest.approx(their_loss.item(), rel=1e-4)
    assert torch.allclose(ours.codebook_vectors(), theirs.codebook, atol=1e-5)
    assert torch.allclose(ours.shares, theirs._codebook.cluster_size[0] / 40, atol=1e-6)


def test_vq_ema_starts_from_inputs_and_revives_dead_codes():
    torch.manual_seed(0)
    quantizer = VQEMA(32, 8)
    centers = torch.randn(32, 8)
    narrow = centers[:1] + 0.1 * torch.randn(1, 64, 8)  # far from most of the codes that were drawn
    quantizer(narrow)
    nearest = (quantizer.codebook_vectors() @ F.normalize(narrow[0], dim=-1).T).max(1).values
    assert nearest.min() > 0.99, "after one batch codes are inputs, or means of some"
    wide = (centers[torch.randint(0, 32, (16, 20))] + 0.05 * torch.randn(16, 20, 8)).contiguous()
    before = quantizer.eval()(wide)
    for _ in range(300):
        quantizer.train()(wide)
    after = quantizer.eval()(wide)
    assert len(before.ids.unique()) < 20 and len(after.ids.unique()) > 24
    assert after.loss < 0.2 * before.loss


def test_vq_ema_with_more_dead_codes_than_inputs_takes_each_input_once():
    torch.manual_seed(0)
    quantizer, z = VQEMA(32, 8), F.normalize(torch.randn(2, 5, 8), dim=-1)
    quantizer(z)
    same = torch.isclose(quantizer.codebook_vectors() @ z.flatten(0, 1).T, torch.ones(()), atol=1e-5)
    assert (same.sum(0) == 1).all(), "each once"


def test_vq_ema_does_not_learn_from_nan():
    quantizer = build("vq_ema")
    quantizer(inputs(quantizer))
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    z = inputs(quantizer, 1)
    z[0, 0, 0] = torch.nan
    assert quantizer(z).loss.isnan()
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


@pytest.mark.parametrize("case", ["vq_ema", "kl"])
def test_only_training_changes_or_draws(case):
    quantizer = build(case).eval()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    z = inputs(quantizer)
    assert torch.equal(quantizer(z).codes, quantizer(z).codes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


@pytest.mark.parametrize("size", [4, 32, 64])
def test_lfq_is_the_librarys(size):
    """Whose entropies need a probability for every token and code."""
    torch.manual_seed(0)
    ours = LFQ(size, commitment_weight=0.25)
    theirs = library.LFQ(
        codebook_size=size, spherical=True, entropy_loss_weight=0.1, commitment_loss_weight=0.25
    )
    z = torch.randn(3, 20, ours.dim)
    z[..., 1:] *= 0.1  # unsure ones
    z = z.requires_grad_()
    codes, ids, loss, terms = ours(z, 0.1)
    (their_codes, _, their_loss), parts = theirs(z, inv_temperature=10, return_loss_breakdown=True)
    assert torch.allclose(codes, their_codes, atol=1e-6) and len(ids.unique()) > size / 4
    assert terms["entropy_sample"].item() == pytest.approx(parts.per_sample_entropy.item(), rel=1e-3)
    assert terms["entropy_batch"].item() == pytest.approx(parts.batch_entropy.item(), rel=1e-3)
    (grad,), (theirs_grad,) = torch.autograd.grad(loss, z), torch.autograd.grad(their_loss, z)
    assert loss.item() == pytest.approx(their_loss.item(), rel=1e-3)
    assert torch.allclose(grad, theirs_grad, atol=1e-3 * theirs_grad.abs().max().item())


@pytest.mark.parametrize("rotation_trick", [False, True])
def test_simvq_is_the_librarys(rotation_trick):
    torch.manual_seed(0)
    ours, theirs = SimVQ(16, 4, 0.25, rotation_trick), library.SimVQ(4, 16, rotation_trick=rotation_trick)
    theirs.frozen_codebook.copy_(ours.fixed)
    theirs.code_transform.load_state_dict(ours.linear.state_dict())
    z = torch.randn(2, 9, 4, requires_grad=True)
    codes, ids, loss, _ = ours(z)
    their_codes, their_ids, their_loss = theirs(z)
    assert torch.equal(ids, their_ids) and torch.allclose(codes, their_codes, atol=1e-6)
    weight = torch.randn_like(codes)
    ours_grads = torch.autograd.grad((codes * weight).sum() + loss, [z, ours.linear.weight])
    their_grads = torch.autograd.grad(
        (their_codes * weight).sum() + their_loss, [z, theirs.code_transform.weight]
    )
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours_grads, their_grads, strict=True))


def test_softvq_mixes_codes_and_ids_name_the_strongest():
    torch.manual_seed(0)
    quantizer, z = SoftVQ(8, 4, temperature=0.07), torch.randn(2, 5, 4)
    codes, ids, _, _ = quantizer(z)
    codebook = F.normalize(quantizer.codebook, dim=-1)
    weights = (nn.CosineSimilarity(-1)(z[:, :, None], codebook) / 0.07).softmax(-1)
    assert torch.allclose(codes, weights @ codebook, atol=1e-6) and torch.equal(ids, weights.argmax(-1))
    assert torch.equal(quantizer.ids_to_codes(ids), codebook[ids])
    quantizer.temperature = 1e-4
    assert torch.allclose(quantizer(z).codes, quantizer.ids_to_codes(ids), atol=1e-3), "cold, it is vq"


def test_kl_is_torchs_and_draws_its_gaussian():
    torch.manual_seed(0)
    quantizer, z = KL(3, weight=0.5), torch.randn(2, 5, 6)
    codes, _, loss, terms = quantizer(z.repeat(2000, 1, 1))
    mean, log_variance = z.chunk(2, -1)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    nats = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).sum(-1).mean().item()
    assert terms["kl"].item() == pytest.approx(nats, rel=1e-4) and loss.item() == pytest.approx(
        nats / 2, rel=1e-4
    )
    drawn = codes.unflatten(0, (2000, 2))
    assert torch.allclose(drawn.mean(0), mean, atol=0.2)
    assert torch.allclose(drawn.std(0), normal.stddev, rtol=0.1)
    assert torch.equal(quantizer.eval()(z).codes, mean)
