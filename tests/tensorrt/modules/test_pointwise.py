"""Element-wise operators that share a kernel."""

import pytest
import torch
from torch import nn

from embedl_deploy.tensorrt.modules import FusedActAdd
from support.fused_modules import check_fused_module, check_input_stubs
from support.nets import random_input

X, RESIDUAL = random_input(2, 3, 4), random_input(3, 1, seed=2)


@pytest.mark.parametrize("act", [nn.SiLU(), nn.ReLU(inplace=True)], ids=["SiLU", "ReLU in place"])
def test_activation_and_sum(act: nn.Module) -> None:
    assert FusedActAdd.inputs_to_quantize == frozenset({0, 1})
    fused = FusedActAdd(act)

    def reference(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return act(x) + residual

    check_fused_module(fused, reference, act, (X, RESIDUAL))
    check_input_stubs(fused, reference, (X, RESIDUAL), [0, 1])
    assert not hasattr(fused, "weight_fake_quant")


def test_it_says_whether_it_overwrites_its_input() -> None:
    x = X.clone()
    FusedActAdd(nn.ReLU())(x, RESIDUAL)
    assert torch.equal(x, X) and not FusedActAdd(nn.ReLU()).inplace and not FusedActAdd(nn.GELU()).inplace
    FusedActAdd(nn.ReLU(inplace=True))(x, RESIDUAL)
    assert torch.equal(x, X.relu()) and FusedActAdd(nn.ReLU(inplace=True)).inplace
