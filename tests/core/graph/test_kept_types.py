"""What writes in place keeps its type, and is taken for a new value only where that is of the same one."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture import capture
from embedl_deploy.graph.kept_types import why_not_a_new_value
from embedl_deploy.modules import symbolic_trace
from support.agreement import fused_counts
from support.nets import net, random_input
from support.small_patterns import PATTERNS

X = random_input(2, 4, 5, 5)
ROW = (5,)


def added(addend):
    """A batch norm, into which something is added in place."""

    def forward(m, x):
        y = m.bn(m.conv(x))
        y += addend(m, x)
        return torch.relu(y)

    return net(forward, conv=nn.Conv2d(4, 4, 1), bn=nn.BatchNorm2d(4), scale=nn.Parameter(torch.ones(5)))


ANOTHER = {
    "a cast": lambda m, x: x.double(),
    "a cast upstream": lambda m, x: torch.relu(x.to(torch.float64) * 2)[:, :, :1],
    "a cast by keyword": lambda m, x: x.mean(1, keepdim=True, dtype=torch.float64),
    "numbers of a type of their own": lambda m, x: torch.linspace(0, x.shape[0], 5),
    "numbers upstream": lambda m, x: x * torch.arange(0.0, x.shape[-1]),
}
THE_SAME = {
    "a value": lambda m, x: x,
    "through layers": lambda m, x: m.conv(x).tanh(),
    "a parameter": lambda m, x: m.scale * x,
    "a cast back": lambda m, x: x.double().type_as(x),
    "a cast to a tensor's type": lambda m, x: torch.arange(5.0).to(x.dtype) + x.to("cpu"),
    "numbers of a tensor's type": lambda m, x: torch.linspace(0, 1, 5, dtype=x.dtype),
    "whole numbers": lambda m, x: x * torch.arange(x.shape[-1]),
    "a mask": lambda m, x: x > 0,
    "a number": lambda m, x: 1.5,
}


@pytest.mark.parametrize("shapes", [False, True])
@pytest.mark.parametrize("name", [*ANOTHER, *THE_SAME])
def test_where_the_types_may_differ(name, shapes):
    model = added({**ANOTHER, **THE_SAME}[name])
    graph_module = capture(model, (X,), trace="export").graph_module if shapes else symbolic_trace(model)
    reasons = [why_not_a_new_value(node) for node in graph_module.graph.nodes]
    assert any(reasons) == (name in ANOTHER)


@pytest.mark.parametrize("trace", ["symbolic", "export", None])
@pytest.mark.parametrize("name", ["a cast", "numbers of a type of their own", "a value"])
def test_a_sum_in_place_gives_what_it_gives_eagerly(name, trace):
    """Without example inputs, and in float16, too; a sum of one type is fused."""
    model = added(ANOTHER.get(name) or THE_SAME[name])
    given = {} if trace is None else {"args": (X,), "trace": trace}
    result = transform(model, patterns=PATTERNS, **given)
    assert fused_counts(result.model).get("QConvAdd", 0) == (1 if name == "a value" else 0)
    torch.testing.assert_close(result.model(X), model(X), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result.model.half()(X.half()), model.half()(X.half()), rtol=1e-2, atol=1e-2)
