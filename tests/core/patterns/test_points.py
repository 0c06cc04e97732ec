"""Declarations about quantizers that would quantize nothing are refused."""

import pytest
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import InputError, PatternError, QuantizationError
from embedl_deploy.modules import FusedModule, QuantStub, WeightFakeQuantize
from embedl_deploy.patterns import Pattern, QDQPoint, validate_pattern
from embedl_deploy.quantize import insert_qdq


@pytest.mark.parametrize("positions", [{"x"}, {-1}, {True}, {0, None}])
def test_positions_are_numbers(positions):
    with pytest.raises(InputError, match=r"Wrong: inputs_to_quantize holds .*; expected positions"):
        type("Wrong", (FusedModule,), {"inputs_to_quantize": positions})


@pytest.mark.parametrize("positions", [0, "x", None])
def test_positions_are_a_set(positions):
    with pytest.raises(InputError, match=r"Wrong: inputs_to_quantize is .*; expected a set of positions"):
        type("Wrong", (FusedModule,), {"inputs_to_quantize": positions})


class OneInput(FusedModule):
    inputs_to_quantize = frozenset({0})

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)


def test_positions_are_inputs_of_forward():
    message = r"Wrong: inputs_to_quantize holds 5, but forward\(self, x\) takes 1 input\(s\); expected .*: at most 0"
    with pytest.raises(InputError, match=message):
        type("Wrong", (OneInput,), {"inputs_to_quantize": {5}})
    with pytest.raises(InputError, match=r"OneInput: input_quant_stubs holds 1, but forward\(self, x\)"):
        OneInput(nn.Linear(1, 1)).input_quant_stubs = {1: QuantStub()}
    type("Any", (OneInput,), {"inputs_to_quantize": {5}, "forward": lambda self, *inputs: inputs[0]})


def test_points_have_a_place_in_the_module_that_is_grafted():
    points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT, QDQPoint.OUTPUT})
    pattern = type("WrongPattern", (Pattern,), {"tree": (nn.Linear,), "graft": OneInput, "qdq_points": points})()
    with pytest.raises(PatternError) as raised:
        validate_pattern(pattern)
    assert str(raised.value) == (
        "Pattern 'WrongPattern': qdq_points names RESIDUAL_INPUT, argument 1 of the call, but inputs_to_quantize of "
        "OneInput is {0}; the point would never be quantized. Make both name the same arguments."
    )


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
