"""Replaces ``view`` by ``reshape``, so that a graph accepts values in any memory layout.

``view`` takes only tensors that lie in memory in its order. The layer before it happened to give such a one; what a
rewrite or a quantizer puts in its place, or the same layer on another device, may give equal numbers in another layout:
``F.scaled_dot_product_attention`` returns its heads interleaved, a matrix product one after the other. ``reshape`` is
the same, and takes both. A user's ``contiguous()`` in front is of no help, as ``torch.export`` leaves out what did
nothing in the example.
"""

from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.effects import Effects

_aten: Any = torch.ops.aten
_FUNCTIONS = {_aten.view.default: _aten.reshape.default, _aten._unsafe_view.default: _aten.reshape.default}
_METHODS = {"view": "reshape", "view_as": "reshape_as"}


def take_any_layout(graph_module: fx.GraphModule) -> None:
    """Have a graph reshape where it takes views, in place; a view that is written through stays one.

    Args:
        graph_module: Its code is the caller's to compile again.
    """
    graph = graph_module.graph
    effects = Effects(graph)
    for node in graph.nodes:
        other = _FUNCTIONS.get(node.target) if node.op == "call_function" else None
        if node.op == "call_method":
            other = _METHODS.get(node.target)
        of_another_type = node.kwargs or any(isinstance(value, torch.dtype) for value in node.args)
        if other is not None and not of_another_type and next(effects.written_after(node), None) is None:
            node.target = other
