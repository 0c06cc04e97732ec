"""Norms: no places for quantizers, and factors for their outputs."""

import pytest
import torch
from torch import nn

from embedl_deploy.modules import LayerNorm2d, RMSNorm2d, WrittenRMSNorm
from embedl_deploy.tensorrt.modules import FusedLayerNorm, FusedLayerNorm2d, FusedRMSNorm
from support.fused_modules import check_fused_module
from support.nets import random_input, scrambled

VECTORS, MAPS = random_input(2, 5, 4), random_input(2, 4, 3, 3)
NORMS = {
    "LayerNorm": (FusedLayerNorm, nn.LayerNorm(4), VECTORS),
    "no bias": (FusedLayerNorm, nn.LayerNorm(4, bias=False), VECTORS),
    "RMSNorm": (FusedRMSNorm, nn.RMSNorm(4), VECTORS),
    "LayerNorm2d": (FusedLayerNorm2d, LayerNorm2d(4), MAPS),
    "RMSNorm2d": (FusedLayerNorm2d, RMSNorm2d(4), MAPS),
}


@pytest.mark.parametrize("name", NORMS)
def test_no_place_for_a_quantizer(name):
    kind, norm, x = NORMS[name]
    fused = kind(norm)
    check_fused_module(fused, norm, norm, (x,))
    assert fused.input_quant_stubs == {} and not hasattr(fused, "weight_fake_quant")
    assert list(fused.children()) == [norm]


@pytest.mark.parametrize("name", NORMS)
def test_outputs_are_scaled_in_new_parameters(name):
    kind, norm, x = NORMS[name]
    fused, factors = kind(scrambled(norm)), torch.tensor([1.0, 2.0, 0.5, 4.0])
    before, weight = fused(x).detach(), norm.weight
    assert fused.scale_outputs(factors) is None
    torch.testing.assert_close(fused(x), before * factors.reshape(-1, *(1,) * (2 if x is MAPS else 0)))
    assert norm.weight is weight


@pytest.mark.parametrize(
    ("fused", "reason"),
    [
        (FusedLayerNorm(nn.LayerNorm((5, 4))), "it normalizes over (5, 4), not over 4 channels"),
        (FusedRMSNorm(WrittenRMSNorm((4,), 1e-6)), "it has no weight and bias to scale"),
        (FusedLayerNorm2d(LayerNorm2d(8)), "it normalizes over (8,), not over 4 channels"),
    ],
)
def test_what_cannot_be_scaled_says_why(fused, reason):
    assert fused.scale_outputs(torch.ones(4)) == reason
