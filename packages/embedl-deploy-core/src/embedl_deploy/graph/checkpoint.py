"""Remembering a graph module: to undo edits, and to have it as it was beside what became of it.

A checkpoint copies the graph but no tensor, so taking one costs a walk over the graph. What it cannot undo is a write
into the values of an existing parameter or buffer.
"""

from typing import Any

from torch import fx, nn

from embedl_deploy.graph.edit import deep_copy


class Checkpoint:
    """The state of a graph module's graph and module tree at the time of construction."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module
        self._nodes = list(graph_module.graph.nodes)
        self._graph = deep_copy(graph_module.graph)
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
        graph = deep_copy(self._graph)
        self._graph_module.graph = graph
        return dict(zip(self._nodes, graph.nodes, strict=True))

    def build(self) -> fx.GraphModule:
        """A graph module in that state, with a graph and a module tree of its own and the modules of then."""
        modules = {path: module for path, module, *_ in self._tree}
        tensors = {
            f"{path}.{name}" if path else name: tensor
            for path, _, _, parameters, buffers, _ in self._tree
            for name, tensor in (*parameters.items(), *buffers.items())
        }
        targets: dict[str, Any] = {}
        for node in self._graph.nodes:
            if node.op == "call_module":
                targets[str(node.target)] = modules[str(node.target)]
            elif node.op == "get_attr":
                target = str(node.target)
                targets[target] = tensors[target] if target in tensors else self._attribute(target, modules)
        built = fx.GraphModule(targets, deep_copy(self._graph), class_name=type(self._graph_module).__name__)
        for path, module in built.named_modules():
            if path not in targets:  # containers that fx made to hold a path
                object.__setattr__(module, "training", self._tree[0][-1])
        return built

    @staticmethod
    def _attribute(target: str, modules: dict[str, nn.Module]) -> Any:
        """An attribute that is neither parameter nor buffer: a plain tensor, or a sub-module passed as a value."""
        parent, _, name = target.rpartition(".")
        return modules[target] if target in modules else getattr(modules[parent], name)
