"""Parametrizations for weights that are computed from other tensors: trainable, and constant once frozen."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from embedl_deploy.graph.forms.form import set_tensor


class ComputedTensor(nn.Module):
    """A parametrization (``torch.nn.utils.parametrize``): what a graph computes of a tensor and others that it holds.

    Args:
        graph_module: The computation: one input, one output.
    """

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__()
        self.computation = graph_module

    def forward(self, original: torch.Tensor) -> torch.Tensor:
        """The computed tensor, of the tensor that is trained in its place."""
        return self.computation(original)  # type: ignore[no-any-return]  # modules are untyped callables

    def extra_repr(self) -> str:
        """What is computed, by the names of the operations."""
        nodes = (node for node in self.computation.graph.nodes if node.op.startswith("call_"))
        return ", ".join(node.name for node in nodes)


def set_computed(module: nn.Module, name: str, original: torch.Tensor, computation: fx.GraphModule) -> None:
    """Make ``computation(original)`` the tensor ``name`` of a module, which trains ``original`` itself."""
    set_tensor(module, name, original)
    parametrize.register_parametrization(module, name, ComputedTensor(computation), unsafe=True)


def computation_of(
    nodes: Iterable[fx.Node], output: fx.Node, tensors: Mapping[fx.Node, Any], after: tuple[Any, ...] = ()
) -> tuple[torch.Tensor, fx.GraphModule]:
    """A part of a graph as a function of the first of its tensors.

    Args:
        nodes: What ``output`` is made from, in the order of the graph.
        output: The node whose value is wanted.
        tensors: What of that is known already, by node: the tensors of the model, that to be trained first, sizes and
            other literals, and tensors that are made from neither.
        after: A function that is applied to the value of ``output``, and its further arguments.

    Returns:
        The first tensor, and the graph module, which holds the others.
    """
    graph, held, made = fx.Graph(), dict[str, torch.Tensor](), dict[fx.Node, Any]()
    first = next(value for value in tensors.values() if isinstance(value, torch.Tensor))
    names: dict[int, str] = {}
    original = graph.placeholder("original")

    def known(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if value is first:
            return original
        name = names.setdefault(id(value), f"tensor_{len(names)}")
        held[name] = value
        return graph.get_attr(name)

    for node in nodes:
        made[node] = known(tensors[node]) if node in tensors else graph.node_copy(node, lambda each: made[each])
    result = made[output]
    graph.output(graph.call_function(after[0], (result, *after[1:])) if after else result)
    return first, fx.GraphModule(held, graph, class_name="Computation")
