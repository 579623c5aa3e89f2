"""Pixel errors: each what its name says, switched by its weight."""

import pytest
import torch
import torch.nn.functional as F

from tok1d.config.schema import LossConfig
from tok1d.losses.objective import charbonnier, pixel_loss, pixel_terms

A, B = torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_terms_are_unweighted_and_the_loss_is_their_weighted_sum():
    config = LossConfig(l1_weight=2, l2_weight=0.5, charbonnier_weight=3)
    terms = pixel_terms(A, B, config)
    assert terms["l1"] == (A - B).abs().mean() and terms["l2"] == (A - B).square().mean()
    want = 2 * terms["l1"] + 0.5 * terms["l2"] + 3 * terms["charbonnier"]
    assert pixel_loss(A, B, config).item() == pytest.approx(want.item(), rel=1e-6)


@pytest.mark.parametrize("on", ["l1", "l2", "charbonnier"])
def test_a_weight_of_0_switches_off(on):
    weights = {f"{name}_weight": float(name == on) for name in ("l1", "l2", "charbonnier")}
    assert list(pixel_terms(A, B, LossConfig(**weights))) == [on]
    assert pixel_loss(A, B, LossConfig(l2_weight=0)) == 0


def test_charbonnier_is_absolute_far_off_and_smooth_at_0():
    assert charbonnier(A, B).item() == pytest.approx(F.l1_loss(A, B).item(), abs=1e-3)
    x = torch.zeros(5, requires_grad=True)
    charbonnier(x, torch.tensor([-1e-4, 0.0, 1e-4, 0.1, -0.9])).backward()
    slope = 5 * x.grad
    assert slope[1] == 0 and 0.05 < slope[0] < 0.2 and slope[2] == -slope[0]
    assert slope[3:].tolist() == pytest.approx([-1, 1], abs=1e-3)
