"""Parameters that flow as activations, and inputs that are given by keyword."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.modules import FusedModule
from embedl_deploy.patterns import Fork, Pattern
from embedl_deploy.quantize import QuantConfig, insert_qdq, quantization_report
from support.agreement import check_rewrite
from support.nets import net, random_input
from support.small_patterns import LinearActPattern, QLinear

X = random_input(5, 8)


class Difference(FusedModule):
    """linear(x) − y."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x, y):
        return self.linear(x) - y


class DifferencePattern(Pattern):
    tree = (Fork(operator.sub, (nn.Linear,), ()),)
    graft = Difference


def table():
    return nn.Parameter(random_input(5, 8, seed=2))


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: torch.relu(m.linear(m.t)) + x,
        lambda m, x: torch.relu(F.linear(input=m.t, weight=m.linear.weight, bias=m.linear.bias)) + x,
        lambda m, x: torch.relu(F.linear(bias=m.linear.bias, weight=m.linear.weight, input=x)),
        lambda m, x: torch.relu(m.linear(input=x)),
        lambda m, x: F.relu(input=m.linear(x)),
        lambda m, x: torch.relu(m.held.linear(m.held.t)) + m.held.t + x,
        lambda m, x: torch.relu(F.linear(m.held.t, m.linear.weight)) + x,
    ],
)
def test_the_fused_module_is_called_with_it(function, trace):
    held = nn.Module()
    held.t, held.linear = table(), nn.Linear(8, 8)
    model = net(function, t=table(), linear=nn.Linear(8, 8), held=held)
    result = transform(model, X, patterns=[LinearActPattern()], trace=trace, strict=True)
    assert result.report["applied_count"] == 1
    assert result.verify(X).max_rel < 1e-6


def test_a_fused_module_does_not_take_the_place_of_the_table_that_flows_into_it():
    held = nn.Module()
    held.t = table()
    model = net(
        lambda m, x: torch.relu(F.linear(m.held.t, m.linear.weight, m.linear.bias)) + x,
        held=held,
        linear=nn.Linear(8, 8),
    )
    result = check_rewrite(model, (X,), [LinearActPattern()])
    assert dict(result.model.named_parameters())["held.t"].shape == (5, 8)


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_operands_by_keyword_keep_their_places(trace):
    model = net(lambda m, x: torch.sub(other=x, input=m.linear(x)), linear=nn.Linear(8, 8))
    result = transform(model, X, patterns=[DifferencePattern()], trace=trace, strict=True)
    assert result.report["applied_count"] == 1
    assert result.verify(X).max_rel < 1e-6


def test_an_input_by_keyword_of_a_fused_module_is_quantized():
    model = net(lambda m, x: m.fused(x=x), fused=QLinear(nn.Linear(8, 8), nn.ReLU()))
    result = transform(model, X, patterns=[])
    quantized = insert_qdq(result.model, config=QuantConfig())
    assert {point.label for point in quantization_report(quantized).quantized} == {"input 0", "weight"}
    (node,) = [n for n in quantized.graph.nodes if n.target == "fused"]
    assert node.kwargs["x"].target == "x_quant"


class FusedUp(FusedModule):
    """act(up(x))."""

    def __init__(self, up, act):
        super().__init__()
        self.up, self.act = up, act

    def forward(self, x):
        return self.act(self.up(x))


class UpActPattern(Pattern):
    tree = (nn.ConvTranspose1d, nn.ReLU)
    graft = FusedUp


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda m, x: torch.relu(m.up(x)), None),
        (lambda m, x: torch.relu(m.up(input=x, output_size=None)), None),
        (lambda m, x: torch.relu(m.up(x, (18,))), "up is called with output_size=(18,), which the module in its place"),
    ],
)
def test_an_argument_that_the_graft_is_not_given_is_a_reason_to_decline(function, reason):
    model = net(function, up=nn.ConvTranspose1d(4, 4, 3, stride=2))
    result = transform(model, patterns=[UpActPattern()], strict=True)
    assert result.report["applied_count"] == (reason is None)
    assert [declined.reason.startswith(reason) for declined in result.report.declined] == [True] * (reason is not None)
    assert result.verify(random_input(2, 4, 8)).max_abs == 0
