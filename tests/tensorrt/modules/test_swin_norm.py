"""Windows are cut before they are normalized, where that gives the same."""

import pytest
import torch
from torch import nn

from embedl_deploy.tensorrt.modules import FusedSwinNormPartition, SwinWindowPartition
from support.nets import random_input, scrambled

SHIFTS = pytest.mark.parametrize("shift", [(0, 0), (2, 2)], ids=["plain", "shifted"])


def fused(shift):
    return FusedSwinNormPartition(scrambled(nn.LayerNorm(8)), SwinWindowPartition((4, 4), shift))


@SHIFTS
@pytest.mark.parametrize("size", [(8, 8), (8, 12), (7, 9), (3, 3), (4, 4)])
def test_equals_the_norm_and_the_partition(shift, size):
    """Padding is of zeros behind the norm, not of what the norm makes of zeros."""
    module, x = fused(shift), random_input(2, *size, 8)
    wanted = module.partition(module.layer_norm(x))
    torch.testing.assert_close(module(x), wanted, rtol=1e-6, atol=1e-6)
    windows = wanted[0] if module.partition.shifted else wanted
    assert bool((windows == 0).all(-1).any()) is module.partition.pads(x)


@SHIFTS
def test_the_norm_comes_second_unless_windows_are_padded(shift):
    module, seen = fused(shift), []
    module.layer_norm.register_forward_hook(lambda _m, args, _y: seen.append(tuple(args[0].shape)))
    module(random_input(2, 8, 8, 8))
    module(random_input(2, 7, 8, 8))
    assert seen == [(8, 16, 8), (2, 7, 8, 8)]


def test_outputs_are_scaled_in_the_norm_with_zeros_left_as_they_are():
    module, factors, x = fused((0, 0)), torch.linspace(0.5, 2, 8), random_input(2, 7, 9, 8)
    before = module(x)
    assert module.scale_outputs(factors) is None
    torch.testing.assert_close(module(x), before * factors)


def test_what_cannot_be_scaled_says_why():
    assert fused((2, 2)).scale_outputs(torch.ones(8)) == "it gives a mask, too"
    no_weight = FusedSwinNormPartition(nn.LayerNorm(8, elementwise_affine=False), SwinWindowPartition((4, 4), (0, 0)))
    assert no_weight.scale_outputs(torch.ones(8)) == "it has no weight and bias to scale"
