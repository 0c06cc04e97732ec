"""Traces a model again from its state after the first call, to see whether the graph would differ.

``self.calls += 1`` is not part of a graph. It does no harm if nothing that is computed depends on it; otherwise the
model is not one function of its inputs, and a graph is.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.capture.side_effects import SideEffects
from embedl_deploy.errors import CaptureError


class OtherCallsDifferError(CaptureError):
    """A graph of one call is not one of the next, so no capture gets the model right."""


def next_call_differs(model: nn.Module, effects: SideEffects, graph: fx.Graph, trace: Callable[[], fx.Graph]) -> bool:
    """Whether another trace gives another graph.

    Args:
        model: The copy that was traced, as the trace has left it.
        effects: What the trace has changed of it.
        graph: What was traced.
        trace: Traces the model again.
    """
    return traces_differ(model, graph, trace) or (effects.move_numbers_on() and traces_differ(model, graph, trace))


def traces_differ(model: nn.Module, graph: fx.Graph, trace: Callable[[], fx.Graph]) -> bool:
    """Whether another trace gives another graph, or none."""
    attributes = set(vars(model))
    try:
        return not _are_equal(model, graph, trace())
    except Exception:  # noqa: BLE001 - the model's own code runs here, on what it has kept of another trace
        return True
    finally:
        for name in vars(model).keys() - attributes:  # constants of the second trace
            del vars(model)[name]


def _are_equal(model: nn.Module, first: fx.Graph, second: fx.Graph) -> bool:
    if len(first.nodes) != len(second.nodes):
        return False
    same = dict(zip(first.nodes, second.nodes, strict=True))
    return all(
        a.op == b.op
        and (_is_same_constant(model, a, b) if a.op == "get_attr" else a.target == b.target)
        and _match(a.args, b.args, same)
        and _match(a.kwargs, b.kwargs, same)
        for a, b in same.items()
    )


def _is_same_constant(model: nn.Module, a: fx.Node, b: fx.Node) -> bool:
    if a.target == b.target:
        return True
    x, y = _attribute(model, a), _attribute(model, b)
    if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
        return x.dtype == y.dtype and x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=0, equal_nan=True)
    return x is y


def _attribute(model: nn.Module, node: fx.Node) -> Any:
    value: Any = model
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value


def _match(a: Any, b: Any, same: dict[fx.Node, fx.Node]) -> bool:
    """Whether two arguments are equal, where nodes are those of their own graphs."""
    if isinstance(a, fx.Node):
        return same.get(a) is b
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_match(x, y, same) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and all(_match(a[key], b[key], same) for key in a)
    if isinstance(a, slice):
        return _match((a.start, a.stop, a.step), (b.start, b.stop, b.step), same)
    return bool(a == b) or (a != a and b != b)  # NaN
