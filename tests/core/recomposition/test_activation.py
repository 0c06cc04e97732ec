"""Activations that are written out become modules of torch.nn, by what they compute."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.recomposition import RecomposeActivationPattern
from support.agreement import check_rewrite, reasons
from support.nets import net, random_input

PATTERN = RecomposeActivationPattern()
X = random_input(3, 5)
SQRT_TWO = math.sqrt(2.0)

WRITTEN = {
    "silu": (lambda m, x: x * x.sigmoid(), nn.SiLU()),
    "silu, the gate first": (lambda m, x: torch.sigmoid(x).mul(x), nn.SiLU()),
    "silu by a module": (lambda m, x: x * m.gate(x), nn.SiLU()),
    "gelu": (lambda m, x: x * 0.5 * (1.0 + torch.erf(x / SQRT_TWO)), nn.GELU()),
    "gelu, otherwise": (lambda m, x: (torch.erf(x * 0.5**0.5) + 1) * x / 2, nn.GELU()),
    "gelu by tanh": (
        lambda m, x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        nn.GELU("tanh"),
    ),
    "gelu by tanh, products": (
        lambda m, x: x * 0.5 * (1 + torch.tanh(x * 0.7978845608028654 * (1 + 0.044715 * x * x))),
        nn.GELU("tanh"),
    ),
    "hardswish": (lambda m, x: x * F.relu6(x + 3.0) / 6.0, nn.Hardswish()),
    "hardswish by clamp": (lambda m, x: x * (x + 3).clamp(0, 6) / 6, nn.Hardswish()),
    "hardsigmoid": (lambda m, x: F.relu6(x + 3.0) / 6.0, nn.Hardsigmoid()),
    "silu in place": (lambda m, x: x.mul_(x.sigmoid()), nn.SiLU()),
    "hardswish in place": (lambda m, x: x.mul_(F.relu6(x + 3.0, True)).div_(6.0), nn.Hardswish()),
    "mish": (lambda m, x: x * torch.tanh(F.softplus(x)), nn.Mish()),
}


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize("name", WRITTEN)
def test_it_becomes_its_module(name, trace):
    function, wanted = WRITTEN[name]
    model = net(lambda m, x: m.fc(function(m, m.fc(x))), gate=nn.Sigmoid(), fc=nn.Linear(5, 5)).double()
    result = transform(model, X.double(), patterns=[PATTERN], trace=trace, strict=True)
    assert result.report["applied_count"] == 1
    assert [repr(module) for module in result.model.modules() if type(module) is type(wanted)] == [repr(wanted)]
    torch.testing.assert_close(result.model(X.double()), model(X.double()), rtol=1e-12, atol=1e-12)


def test_training_and_a_second_run():
    check_rewrite(net(lambda m, x: (y := m.fc(x)) * torch.sigmoid(y), fc=nn.Linear(5, 5)), [X], [PATTERN])


OTHERS = {
    "a rounded constant": lambda m, x: x * 0.5 * (1.0 + torch.erf(x / 1.4142)),
    "a steeper gate": lambda m, x: x * torch.sigmoid(1.702 * x),
    "another tensor's gate": lambda m, x: x * torch.sigmoid(x + x.mean()),
    "shifted in place first": lambda m, x: x.add_(3).clamp(0, 6) * x / 6,
    "a gate alone": lambda m, x: 2 * torch.sigmoid(x),
    "a power": lambda m, x: x * x * torch.sigmoid(x),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions_stay(name):
    result = check_rewrite(net(lambda m, x: OTHERS[name](m, m.fc(x)), fc=nn.Linear(5, 5)), [X], [PATTERN], train=False)
    assert result.report["applied_count"] == 0 and not reasons(result)


def test_a_gate_that_is_used_elsewhere_is_told():
    result = transform(net(lambda m, x: ((g := torch.sigmoid(x)) * x, g)), X, patterns=[PATTERN])
    (reason,) = reasons(result)
    assert reason.endswith("sigmoid is an output of the model")


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_in_place_where_somebody_sees_it(trace):
    through_a_view = net(
        lambda m, x: (v := (y := m.fc(x)).view(-1), y.mul_(y.sigmoid()), v * 2)[1:], fc=nn.Linear(5, 5)
    )
    an_input = net(lambda m, x: x.mul_(x.sigmoid()) + 1)
    for model, told in ((through_a_view, "reads it afterwards"), (an_input, "changes the input 'x' in place")):
        result = transform(model, X, patterns=[PATTERN], trace=trace)
        (reason,) = reasons(result)
        assert reason.endswith(told)
        given, wanted_given = X.clone(), X.clone()
        torch.testing.assert_close(result.model(given), model(wanted_given))
        assert torch.equal(given, wanted_given)
