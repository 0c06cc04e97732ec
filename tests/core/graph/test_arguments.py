"""The arguments of a call, however they were passed."""

import operator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from embedl_deploy.graph.arguments import (
    argument_at,
    arguments_by_name,
    constants_of,
    positional_arguments,
    set_argument,
    tensor_inputs,
)
from embedl_deploy.modules import symbolic_trace


class Scaled(nn.Module):
    """A module with a default and a keyword-only parameter."""

    def forward(self, x: torch.Tensor, by: float = 2.0, *, plus: float = 0.0) -> torch.Tensor:
        """x·by + plus."""
        return x * by + plus


def call(*args: Any, **kwargs: Any) -> fx.Node:
    """The node that calls a ``Scaled`` with the input and these arguments."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_module("scaled", (x, *args), kwargs)
    graph.output(node)
    fx.GraphModule({"scaled": Scaled()}, graph)
    return next(n for n in graph.nodes if n.op == "call_module")


class TestArgumentsByName:
    @pytest.mark.parametrize("node", [call(3.0), call(by=3.0)], ids=["by position", "by keyword"])
    def test_the_way_of_passing_makes_no_difference(self, node):
        assert arguments_by_name(node) == {"x": node.args[0], "by": 3.0, "plus": 0.0}

    def test_defaults_are_there(self):
        node = call()
        assert arguments_by_name(node) == {"x": node.args[0], "by": 2.0, "plus": 0.0}

    def test_a_python_function(self):
        graph = fx.Graph()
        x = graph.placeholder("x")
        node = graph.call_function(operator.add, (x, 1))
        assert arguments_by_name(node) == {"a": x, "b": 1}

    def test_what_the_module_does_not_take(self):
        with pytest.raises(TypeError, match="twice"):
            arguments_by_name(call(twice=True))


class TestPositionalArguments:
    def test_keywords_in_their_places(self):
        node = call(by=3.0)
        assert positional_arguments(node) == [node.args[0], 3.0]

    def test_defaults_before_a_keyword(self):
        node = call(plus=1.0)
        assert positional_arguments(node) == [node.args[0], 2.0, 1.0]

    def test_nothing_to_do(self):
        node = call(3.0)
        assert positional_arguments(node) == [node.args[0], 3.0]


class TestArgumentAt:
    @pytest.mark.parametrize("node", [call(3.0), call(by=3.0)], ids=["by position", "by keyword"])
    def test_it_is_read_and_changed_where_it_is(self, node):
        assert argument_at(node, 1) == 3.0
        set_argument(node, 1, 4.0)
        assert arguments_by_name(node)["by"] == 4.0

    def test_there_is_none(self):
        assert argument_at(call(plus=1.0), 1) is None
        assert argument_at(call(), 7) is None


class Owner(nn.Module):
    """Two inputs, and tensors of its own."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.w, self.b, self.t = (
            nn.Parameter(torch.randn(3, 3)),
            nn.Parameter(torch.randn(3)),
            nn.Parameter(torch.ones(3)),
        )
        self.pair = nn.Bilinear(3, 3, 3)
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Whatever the function gives."""
        return self.function(self, x, y)


@pytest.mark.parametrize(
    ("function", "inputs", "constants"),
    [
        (lambda m, x, y: F.linear(x, m.w, m.b), ["x"], ["w", "b"]),
        (lambda m, x, y: F.linear(m.t, m.w, m.b), ["t"], ["w", "b"]),
        (lambda m, x, y: F.linear(bias=m.b, weight=m.w, input=m.t), ["t"], ["w", "b"]),
        (lambda m, x, y: F.linear(m.w, m.w), ["w"], []),
        (lambda m, x, y: F.linear(x, y, m.b), ["x", "y", "b"], []),
        (lambda m, x, y: F.relu(m.t), ["t"], []),
        (lambda m, x, y: m.t.relu(), ["t"], []),
        (lambda m, x, y: F.layer_norm(m.t, (3,), bias=m.b), ["t"], ["b"]),
        (lambda m, x, y: F.embedding(x, m.w), ["x"], ["w"]),
        (lambda m, x, y: F.bilinear(y, m.t, m.w), ["y", "t", "w"], []),
        (lambda m, x, y: m.pair(input2=x, input1=y), ["y", "x"], []),
        (lambda m, x, y: m.pair(x, x), ["x", "x"], []),
        (lambda m, x, y: torch.sub(other=x, input=y), ["y", "x"], []),
        (lambda m, x, y: y.sub(other=m.t), ["y", "t"], []),
        (lambda m, x, y: torch.cat(dim=1, tensors=[y, x]), ["y", "x"], []),
        (lambda m, x, y: F.scaled_dot_product_attention(value=m.t, key=y, query=x), ["x", "y", "t"], []),
    ],
)
def test_what_flows_in_is_told_by_the_role_of_an_argument(function, inputs, constants):
    graph = symbolic_trace(Owner(function)).graph
    node = [n for n in graph.nodes if n.op.startswith("call_")][-1]
    assert [str(n.target) for n in tensor_inputs(node)] == inputs
    assert sorted(str(n.target) for n in constants_of(node)) == sorted(constants)
