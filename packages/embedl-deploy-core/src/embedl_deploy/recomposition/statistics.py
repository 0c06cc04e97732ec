"""Finds variances and mean squares, with their tensor and axes.

    mean(x²)        mean((x − mean(x))²)        var(x)        var_mean(x)[0]

Also of a tensor that is first converted to a type that is written out.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.casts import is_cast, written_type
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import is_in_place, operation
from embedl_deploy.graph.signatures import bind_call
from embedl_deploy.recomposition.written_numbers import number_of

Axes = tuple[int, ...]


class NoNormError(Exception):
    """Why a tensor that is divided by its own spread is not normalized as a layer does it: the text is the reason."""


@dataclass(frozen=True)
class Spread:
    """A tensor as it stands in a norm, before it is divided.

    Attributes:
        source: What is normalized.
        axes: The axes over which its mean is taken off, if it is.
        upcast: The type that it is converted to first, if the author wrote one.
        nodes: What computes it of ``source``.
    """

    source: fx.Node
    axes: Axes | None = None
    upcast: torch.dtype | None = None
    nodes: tuple[fx.Node, ...] = ()


def _axes(values: dict[str, Any], of: fx.Node) -> Axes | None:
    """The axes of a mean or variance that keeps them, from the last if the rank is known."""
    dim = values.get("dim")
    given = [dim] if isinstance(dim, int) else list(dim) if isinstance(dim, (list, tuple)) else []
    if not given or values.get("keepdim") is not True or not all(isinstance(axis, int) for axis in given):
        return None
    shape = shape_of(of)
    return tuple(sorted(axis - len(shape) if shape is not None and axis >= 0 else axis for axis in given))


def _values(node: fx.Node) -> dict[str, Any]:
    bound = bind_call(node)
    return {} if bound is None else bound.values


def _is_mean(node: Any) -> bool:
    return isinstance(node, fx.Node) and operation(node) == "mean" and _values(node).get("dtype") is None


def mean_square_of(node: fx.Node) -> tuple[Spread, Axes | None, list[fx.Node]] | None:
    """What the mean is of, squared; over which axes; and the nodes."""
    square = node.args[0] if _is_mean(node) and node.args else None
    if not isinstance(square, fx.Node) or is_in_place(square) or not square.args:
        return None
    name, value = operation(square), square.args[0]
    is_square = name == "square" or (
        len(square.args) > 1
        and ((name == "pow" and number_of(square.args[1]) == 2) or (name == "mul" and square.args[1] is value))
    )
    if not is_square or not isinstance(value, fx.Node):
        return None
    return deviation_of(value), _axes(_values(node), square), [node, square]


def variance_of(node: fx.Node) -> tuple[Spread, Axes | None, list[fx.Node]] | None:
    """What a variance is of, as deviations from its mean; over which axes; and the nodes."""
    nodes, call = [node], node
    if operation(node) == "getitem" and isinstance(node.args[0], fx.Node) and node.args[1] == 0:
        call = node.args[0]
        nodes.append(call)
    wanted = "var" if call is node else "var_mean"
    if operation(call) != wanted or not call.args or not isinstance(call.args[0], fx.Node):
        return None
    values = _values(call)
    if values.get("unbiased", values.get("correction")) not in (False, 0):
        raise NoNormError(f"{call.name} divides by one less than the number of values")
    axes, source = _axes(values, call.args[0]), _uncast(call.args[0])
    return replace(source, axes=axes), axes, nodes


def _uncast(node: fx.Node) -> Spread:
    """A tensor, seen through a conversion to a type that is written out."""
    if not is_cast(node) or is_in_place(node) or not isinstance(node.args[0], fx.Node):
        return Spread(node)
    dtype = written_type(node)
    others = [value for value in (*node.args[1:], *node.kwargs.values()) if value is not dtype]
    if dtype is None or not dtype.is_floating_point or any(value not in (None, False) for value in others):
        return Spread(node)
    return Spread(node.args[0], upcast=dtype, nodes=(node,))


def deviation_of(node: fx.Node) -> Spread:
    """A tensor, seen through the conversion before it and the mean that is taken off."""
    if operation(node) != "sub" or is_in_place(node) or len(node.args) != 2 or node.kwargs:
        return _uncast(node)
    value, mean = node.args
    if not isinstance(value, fx.Node) or not isinstance(mean, fx.Node):
        return Spread(node)
    if operation(mean) == "getitem" and mean.args[1] == 1 and isinstance(mean.args[0], fx.Node):
        call = mean.args[0]
        nodes: tuple[fx.Node, ...] = (call, mean)
        of = call.args[0] if operation(call) == "var_mean" else None
    else:
        call, nodes = mean, (mean,)
        of = mean.args[0] if _is_mean(mean) and mean.args else None
    if not isinstance(of, fx.Node):
        return Spread(node)
    axes, inner, under = _axes(_values(call), of), _uncast(value), _uncast(of)
    if axes is None or (inner.source, inner.upcast) != (under.source, under.upcast):
        return Spread(node)
    return Spread(inner.source, axes, inner.upcast, (*inner.nodes, *under.nodes, *nodes, node))
