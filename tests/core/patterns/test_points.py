"""Declarations about quantizers that would quantize nothing are refused."""

import pytest
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.modules import FusedModule, WeightFakeQuantize
from embedl_deploy.patterns import Pattern, QDQPoint
from embedl_deploy.quantize import insert_qdq


@pytest.mark.parametrize("positions", [{"x"}, {-1}, {True}, {0, None}])
def test_positions_are_numbers(positions):
    with pytest.raises(InputError, match=r"Wrong: inputs_to_quantize holds .*; expected positions"):
        type("Wrong", (FusedModule,), {"inputs_to_quantize": positions})


@pytest.mark.parametrize("positions", [0, "x", None])
def test_positions_are_a_set(positions):
    with pytest.raises(InputError, match=r"Wrong: inputs_to_quantize is .*; expected a set of positions"):
        type("Wrong", (FusedModule,), {"inputs_to_quantize": positions})


class TwoWeights(FusedModule):
    inputs_to_quantize = frozenset({0})

    def __init__(self, linear):
        super().__init__()
        self.linear, self.weight_fake_quant, self.other = linear, WeightFakeQuantize(), WeightFakeQuantize()

    def forward(self, x):
        return self.linear(x)


class TwoWeightsPattern(Pattern):
    tree = (nn.Linear,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = TwoWeights


def test_a_second_weight_is_refused():
    result = transform(nn.Sequential(nn.Linear(3, 3)), patterns=[TwoWeightsPattern()])
    with pytest.raises(QuantizationError, match=r"TwoWeights at '0', from pattern 'TwoWeightsPattern', .* at 'other'"):
        insert_qdq(result.model, result.matches)


def test_unless_the_module_opts_out():
    result = transform(nn.Sequential(nn.Linear(3, 3)), patterns=[TwoWeightsPattern()])
    result.model.get_submodule("0").why_not_quantized = "float on purpose"
    insert_qdq(result.model, result.matches)
