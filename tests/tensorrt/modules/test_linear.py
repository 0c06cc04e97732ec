"""Matrix products with what TensorRT computes in the same kernel."""

import torch
from torch import nn

from embedl_deploy.tensorrt.modules import FusedLinear, FusedLinearAct, FusedLinearReLU
from support.fused_modules import check_fused_module, check_input_stubs, check_weight_stub
from support.nets import random_input

X = random_input(2, 5, 4)


def test_the_name_of_0_6_is_the_same_class() -> None:
    assert FusedLinearAct is FusedLinearReLU


def test_inputs_to_quantize_is_known_without_an_instance() -> None:
    assert FusedLinear.inputs_to_quantize == FusedLinearReLU.inputs_to_quantize == frozenset({0})


def test_linear() -> None:
    for bias in (True, False):
        linear = nn.Linear(4, 3, bias=bias)
        fused = FusedLinear(linear)
        check_fused_module(fused, linear, linear, (X,))
        check_input_stubs(fused, linear, (X,), [0])
        check_weight_stub(fused, linear.weight, (X,))


def test_linear_with_an_activation() -> None:
    linear, act = nn.Linear(4, 3), nn.GELU()
    fused = FusedLinearReLU(linear, act)

    def reference(x: torch.Tensor) -> torch.Tensor:
        return act(linear(x))

    check_fused_module(fused, reference, nn.ModuleList([linear, act]), (X,))
    check_input_stubs(fused, reference, (X,), [0])
    check_weight_stub(fused, linear.weight, (X,))
