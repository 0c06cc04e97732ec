"""Shapes of values that rewrites have put into a graph, from the shapes around them.

Shapes are propagated once, when a model is captured. A conversion that opens a layer puts nodes there whose shapes
nobody has written, and patterns that ask for them would decline.
"""

from typing import Any

import torch
from torch import fx, nn
from torch._subclasses import FakeTensorMode
from torch.fx.passes.shape_prop import TensorMetadata

from embedl_deploy.graph.lookup import get_module, is_plain_torch_module
from embedl_deploy.graph.placement import placement_of
from embedl_deploy.graph.process_hooks import call_hooks_set_aside
from embedl_deploy.graph.shapes import FakeInterpreter
from embedl_deploy.logs import fake_tensors_quiet

_UNKNOWN = object()


def write_new_shapes(graph_module: fx.GraphModule) -> None:
    """Write the shape of every value that has none, as far as it follows from others, into ``node.meta``.

    Args:
        graph_module: Changed only in its nodes' ``meta``.
    """
    new = [node for node in graph_module.graph.nodes if _may_have_a_shape(node)]
    if not new or not any(
        isinstance(node.meta.get("tensor_meta"), TensorMetadata) for node in graph_module.graph.nodes
    ):
        return  # without example inputs nothing is known
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, torch.no_grad(), call_hooks_set_aside(), fake_tensors_quiet():
        values = _Values(graph_module, mode)
        for node in new:
            values.of(node)


def _may_have_a_shape(node: fx.Node) -> bool:
    return node.op.startswith("call_") and "tensor_meta" not in node.meta


def _is_users(module: nn.Module | None) -> bool:
    """Whether a module is the user's own, which may count its calls."""
    return module is None or (placement_of(module) is None and not is_plain_torch_module(module))


class _Values(FakeInterpreter):
    """Fake values of nodes, computed when they are asked for."""

    def of(self, node: fx.Node) -> Any:
        """The value of a node; ``_UNKNOWN`` where it does not follow from known shapes."""
        if node not in self.env:
            self.env[node] = self._found(node)
        return self.env[node]

    def _found(self, node: fx.Node) -> Any:
        known = node.meta.get("tensor_meta")
        if isinstance(known, TensorMetadata):
            return torch.empty_strided(known.shape, known.stride, dtype=known.dtype)
        if node.op == "placeholder" or (node.op == "call_module" and _is_users(get_module(node))):
            return _UNKNOWN
        if any(self.of(value) is _UNKNOWN for value in node.all_input_nodes):
            return _UNKNOWN
        try:
            return self.run_node(node)
        except Exception:  # noqa: BLE001 - a plugin's module may raise anything; who runs the graph is told
            return _UNKNOWN
