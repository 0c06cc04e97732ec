"""Pooling."""

from torch import nn

from embedl_deploy.tensorrt.modules import FusedAdaptiveAvgPool2d
from support.fused_modules import check_fused_module, check_input_stubs
from support.nets import random_input

X = random_input(2, 3, 7, 5)


def test_adaptive_average_pooling() -> None:
    assert FusedAdaptiveAvgPool2d.inputs_to_quantize == frozenset({0})
    pool = nn.AdaptiveAvgPool2d((2, None))
    fused = FusedAdaptiveAvgPool2d(pool)
    check_fused_module(fused, pool, pool, (X,))
    check_input_stubs(fused, pool, (X,), [0])
    assert not hasattr(fused, "weight_fake_quant")
