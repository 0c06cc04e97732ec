"""Finds functions in a symbolic graph that hide computations with the model's weights.

A library may tell ``torch.fx`` to keep a function whole (``torch.fx.wrap``), because its code branches on sizes. To
``torch.export`` it is code like any other.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch import fx, nn

from embedl_deploy.graph.lookup import get_constant
from embedl_deploy.graph.metadata import dtype_of
from embedl_deploy.graph.operators import operation


def hides_weights(graph: fx.Graph, is_known: Callable[[Callable[..., Any]], bool]) -> str | None:
    """The name of a function of a library, kept whole, that is given an activation and weights of the model, if any.

    Args:
        graph: A symbolic graph with the dtypes of its values.
        is_known: Whether a pattern knows the function.
    """
    for node in graph.nodes:
        target = node.target
        if node.op != "call_function" or not isinstance(target, FunctionType) or operation(node) is not target:
            continue
        inputs = node.all_input_nodes
        held = [get_constant(value) for value in inputs if value.op == "get_attr"]
        has_weights = any(isinstance(each, nn.Parameter) and each.dim() > 1 for each in held)
        if has_weights and any(_is_activation(value) for value in inputs) and not is_known(target):
            return target.__name__
    return None


def _is_activation(node: fx.Node) -> bool:
    """Whether a value is a tensor of numbers that is not the model's own; shapes are known."""
    dtype = dtype_of(node)
    return node.op != "get_attr" and dtype is not None and dtype.is_floating_point
