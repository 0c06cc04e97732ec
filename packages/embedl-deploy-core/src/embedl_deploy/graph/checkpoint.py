"""Checkpoints of a graph module, to undo edits or to keep the original next to the edited graph.

A checkpoint notes what points where and copies nothing, so taking one costs a walk over the graph. What it cannot
undo is what happens to an existing module or tensor: other settings, values that are written in place.
"""

from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.edit import deep_copy


class Checkpoint:
    """The state of a graph module's graph and module tree at the time of construction."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module
        graph = graph_module.graph
        self._codegen = graph._codegen
        # A node's arguments are immutable; an edit gives it others. So they need no copy.
        self._nodes = [(n, n.op, n.target, n.args, n.kwargs, n.name, n.type, dict(n.meta)) for n in graph.nodes]
        self._tree = [
            (path, module, dict(module._modules), dict(module._parameters), dict(module._buffers), module.training)
            for path, module in graph_module.named_modules()
        ]

    def restore(self) -> dict[fx.Node, fx.Node]:
        """Bring the graph module back to that state; may be called more than once.

        Returns:
            For every node that was in the graph at construction, the node that takes its place now.
        """
        module: nn.Module
        for _, module, modules, parameters, buffers, training in self._tree:
            module._modules.clear()
            module._modules.update(modules)
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)
            object.__setattr__(module, "training", training)
        graph, now = self._make_graph()
        self._graph_module.graph = graph
        return now

    def _make_graph(self) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
        graph = fx.Graph()
        graph.set_codegen(deep_copy(self._codegen))
        now: dict[fx.Node, fx.Node] = {}
        for node, op, target, args, kwargs, name, type_, meta in self._nodes:
            args, kwargs = (fx.map_arg(value, now.__getitem__) for value in (args, kwargs))
            now[node] = graph.create_node(op, target, args, kwargs, name, type_)
            now[node].meta = dict(meta)
        return graph, now

    def build(self) -> fx.GraphModule:
        """A graph module in that state, with a graph and a module tree of its own and the modules of then."""
        modules, tensors = {path: module for path, module, *_ in self._tree}, self.tensors()
        targets: dict[str, Any] = {}
        graph, _ = self._make_graph()
        for node in graph.nodes:
            target = str(node.target)
            if node.op == "call_module":
                targets[target] = modules[target]
            elif node.op == "get_attr":
                targets[target] = tensors[target] if target in tensors else self._attribute(target, modules)
        built = fx.GraphModule(targets, graph, class_name=type(self._graph_module).__name__)
        for path, module in built.named_modules():
            if path not in targets:  # containers that fx made to hold a path
                object.__setattr__(module, "training", self._tree[0][-1])
        return built

    def tensors(self) -> dict[str, torch.Tensor | None]:
        """The parameters and buffers of then, by path; what is shared by one of its paths."""
        return {
            f"{path}.{name}" if path else name: tensor
            for path, _, _, parameters, buffers, _ in self._tree
            for name, tensor in (*parameters.items(), *buffers.items())
        }

    @staticmethod
    def _attribute(target: str, modules: dict[str, nn.Module]) -> Any:
        """An attribute that is neither parameter nor buffer: a plain tensor, or a sub-module passed as a value."""
        parent, _, name = target.rpartition(".")
        return modules[target] if target in modules else getattr(modules[parent], name)
