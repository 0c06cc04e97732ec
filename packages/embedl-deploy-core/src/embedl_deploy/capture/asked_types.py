"""Types and devices in a symbolic graph that the model's code took from its own tensors.

``x.to(next(self.parameters()).dtype)`` and ``torch.finfo(self.dtype).min`` are literals in a trace, as what the author
wrote down is. Where there may be such, the model is traced again in another type, see ``marked.py``; what differs
was asked for, and follows the model from here on.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate

from embedl_deploy.capture.marked import MarkedModel, device_for
from embedl_deploy.capture.model_type import ModelType
from embedl_deploy.capture.two_types import notes_of_fixed_types
from embedl_deploy.errors import CaptureError
from embedl_deploy.exclusive import global_state

_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_LIMITS = frozenset(
    getattr(torch.finfo(dtype), name) for dtype in _TYPES for name in ("min", "max", "eps", "tiny", "resolution")
)


def follow_what_was_asked_for(
    graph_module: fx.GraphModule, mark: Callable[[], MarkedModel | None], trace: Callable[[Any], fx.Graph]
) -> tuple[str, ...]:
    """Make literals follow the model that stand for its type or its device.

    Args:
        graph_module: What was traced; changed in place.
        mark: Gives the model in another type.
        trace: Traces a model as this one was.

    Returns:
        What to tell of literals that do not follow it.
    """
    if not any(_may_stand_for_it(value) for node in graph_module.graph.nodes for value in _literals(node)):
        return ()
    marked = mark()
    if marked is None or marked.own is None or marked.dtype is None:
        return ()
    try:
        with global_state, marked.traced():
            other = trace(marked.model)
    except Exception as error:  # noqa: BLE001 - the model's own code, in a type that it was not written for
        failed = CaptureError(str(error))
        failed.__cause__ = error
        return notes_of_fixed_types(graph_module, failed)
    pairs = list(zip(graph_module.graph.nodes, other.nodes, strict=False))
    if len(graph_module.graph.nodes) != len(other.nodes) or not all(_are_alike(*pair) for pair in pairs):
        return notes_of_fixed_types(graph_module)
    device = next((device_for(t) for t in (*graph_module.parameters(), *graph_module.buffers())), torch.device("cpu"))
    model_type = ModelType(graph_module, device, marked.own)
    for node, twin in pairs:
        _follow(node, twin, marked, marked.own, model_type)
    graph_module.recompile()
    return ()


def _follow(node: fx.Node, twin: fx.Node, marked: MarkedModel, own: torch.dtype, model_type: ModelType) -> None:
    others = iter(_literals(twin))
    limits = marked.named_limits()

    def followed(value: Any) -> Any:
        other = next(others)
        if value is own and other is marked.dtype:
            return model_type.attribute("dtype")
        if model_type.is_its_device(value):
            return model_type.attribute("device")
        if isinstance(other, float) and other in limits and value == getattr(torch.finfo(own), limits[other]):
            return model_type.limit(limits[other])
        return value

    args, kwargs = map_aggregate((node.args, node.kwargs), followed)
    if (args, kwargs) != (node.args, node.kwargs):
        node.args, node.kwargs = args, kwargs


def _literals(node: fx.Node) -> list[Any]:
    """The leaves of a node's arguments."""
    found: list[Any] = []
    map_aggregate((node.args, node.kwargs), found.append)
    return found


def _may_stand_for_it(value: Any) -> bool:
    if isinstance(value, torch.dtype):
        return value in _TYPES
    return isinstance(value, torch.device) or (isinstance(value, float) and value in _LIMITS)


def _are_alike(node: fx.Node, twin: fx.Node) -> bool:
    """Whether two nodes do the same, but for literals."""
    return (node.op, node.target) == (twin.op, twin.target) and len(_literals(node)) == len(_literals(twin))
