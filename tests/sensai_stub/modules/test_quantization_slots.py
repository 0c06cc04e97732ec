"""Where quantizers stand in the fused modules, and that they are asked."""

import pytest
import torch
from torch import nn

from embedl_deploy_sensai_stub.modules import (
    SensaiAdd,
    SensaiConvBN,
    SensaiConvBNReLU,
    SensaiGlobalAveragePool,
    SensaiLinear,
    SensaiMaxPool,
)
from support.fused_modules import check_input_stubs


class Doubled(nn.Module):
    """A stand-in for a quantizer whose effect is easy to see."""

    def forward(self, x):
        return 2 * x


def conv():
    return nn.Conv2d(2, 2, 3, bias=False)


MODULES = [
    (SensaiConvBN(conv()), (1, 2, 5, 5)),
    (SensaiConvBNReLU(conv(), None, nn.ReLU()), (1, 2, 5, 5)),
    (SensaiLinear(nn.Linear(5, 3, bias=False)), (1, 5)),
    (SensaiLinear(nn.Linear(5, 3, bias=False), nn.ReLU()), (1, 5)),
    (SensaiMaxPool(nn.MaxPool2d(2)), (1, 2, 4, 4)),
    (SensaiGlobalAveragePool(nn.AdaptiveAvgPool2d(1)), (1, 2, 4, 4)),
]
WEIGHTED = [case for case in MODULES if "weight_fake_quant" in dict(case[0].named_children())]


@pytest.mark.parametrize(("module", "shape"), MODULES)
def test_the_input_is_quantized(module, shape):
    check_input_stubs(module, module, (torch.randn(shape),), [0])


@pytest.mark.parametrize(("module", "shape"), WEIGHTED)
def test_the_weight_stub_is_asked(module, shape):
    x = torch.randn(shape)
    before = module(x)
    module.weight_fake_quant.quantizer = Doubled()
    torch.testing.assert_close(module(x), 2 * before)
    module.weight_fake_quant.quantizer = None


@pytest.mark.parametrize("training", [False, True])
def test_the_weight_stub_keeps_bias_and_batch_norm(training):
    module = SensaiConvBN(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)).train(training)
    module.bn.running_mean.normal_()
    module.bn.running_var.uniform_(0.5, 2.0)
    x = torch.randn(1, 2, 5, 5)
    before = module(x)
    module.weight_fake_quant.quantizer = nn.Identity()
    torch.testing.assert_close(module(x), before)


def test_both_maps_of_a_sum_are_quantized():
    module = SensaiAdd(nn.ReLU())
    check_input_stubs(module, module, (torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)), [0, 1])


def test_convolutions_and_products_have_a_weight_and_nothing_else_has():
    assert len(WEIGHTED) == 4
