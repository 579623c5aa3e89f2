"""One contract for every quantizer."""

import pytest
import torch
import torch.nn.functional as F

from tok1d.quantizers import FSQ, VQ

QUANTIZERS = {
    "fsq": lambda: FSQ((8, 8, 8, 5, 5, 5)),
    "fsq_small": lambda: FSQ((3, 4)),
    "vq": lambda: VQ(64, 4),
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_contract(name):
    torch.manual_seed(0)
    quantizer = QUANTIZERS[name]()
    z = (2 * torch.randn(3, 50, quantizer.dim)).requires_grad_()
    codes, ids, loss = quantizer(z)
    assert codes.shape == z.shape and ids.shape == (3, 50) and ids.dtype == torch.int64 and loss.ndim == 0
    assert ids.min() >= 0 and ids.max() < quantizer.codebook_size
    assert torch.allclose(quantizer.decode_ids(ids), codes, atol=1e-6)
    _again, ids_again, _ = quantizer(codes.detach()) if name == "vq" else (codes, ids, loss)
    assert torch.equal(ids, ids_again), "a code is its own nearest code"
    codes.sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0, "gradients pass straight through"


def test_vq_loss_pulls_codes_to_inputs_and_inputs_to_codes():
    """‖sg[z] - e‖² moves the codebook, 0.25 ‖z - sg[e]‖² moves the encoder."""
    torch.manual_seed(0)
    quantizer, z = VQ(8, 4, commitment_weight=0.25), torch.randn(1, 16, 4, requires_grad=True)
    _, ids, loss = quantizer(z)
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


def test_vq_entropy_loss_rewards_sure_tokens_and_a_used_codebook():
    quantizer = VQ(4, 4)
    quantizer.codebook.data = torch.eye(4)
    quantizer.entropy_weight = 1.0
    spread, same = torch.eye(4)[None], torch.eye(4)[:1].expand(4, 4)[None]
    unsure = torch.ones(1, 4, 4)

    def entropy(z):
        with_it = quantizer(z).loss
        quantizer.entropy_weight = 0.0
        without = quantizer(z).loss
        quantizer.entropy_weight = 1.0
        return (with_it - without).item()

    assert entropy(spread) == pytest.approx(-torch.log(torch.tensor(4.0)).item(), abs=1e-3)
    assert entropy(same) == pytest.approx(0, abs=1e-3)
    assert entropy(unsure) == pytest.approx(0, abs=1e-3)
