"""The arguments of a call, however they were passed."""

import operator
from typing import Any

import pytest
import torch
from torch import fx, nn

from embedl_deploy.graph.lookup import arguments_by_name, positional_arguments


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
