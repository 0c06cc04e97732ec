"""Remembering a graph: to undo edits, and to have the graph as it was beside the graph as it is.

Both copy the graph but no tensor, so taking one costs a walk over the graph. Neither can undo a write into the values of
an existing parameter or buffer.
"""

from typing import Any

from torch import fx, nn

from embedl_deploy.graph.edit import copy_graph


class Checkpoint:
    """The state of a graph module's graph and module tree at the time of construction, to go back to."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module
        self._nodes = list(graph_module.graph.nodes)
        self._graph = copy_graph(graph_module.graph)
        self._tree = [
            (module, dict(module._modules), dict(module._parameters), dict(module._buffers), module.training)
            for module in graph_module.modules()
        ]

    def restore(self) -> dict[fx.Node, fx.Node]:
        """Bring back the graph and the module tree; may be called more than once.

        Returns:
            For every node that was in the graph at construction, the node that takes its place now.
        """
        module: nn.Module
        for module, modules, parameters, buffers, training in self._tree:
            module._modules.clear()
            module._modules.update(modules)
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)
            object.__setattr__(module, "training", training)
        graph = copy_graph(self._graph)
        self._graph_module.graph = graph
        return dict(zip(self._nodes, graph.nodes, strict=True))


class Snapshot:
    """A graph module as it is at the time of construction; :meth:`build` makes it again, sharing its modules."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph = copy_graph(graph_module.graph)
        self._name = type(graph_module).__name__
        self._training = graph_module.training
        self._targets: dict[str, Any] = {}
        for node in self._graph.nodes:
            if node.op in ("call_module", "get_attr"):
                target = str(node.target)
                value: Any = graph_module
                for name in target.split("."):
                    value = getattr(value, name)
                self._targets[target] = value

    def build(self) -> fx.GraphModule:
        """A new graph module with a graph and a module tree of its own, and the modules of then."""
        built = fx.GraphModule(self._targets, copy_graph(self._graph), class_name=self._name)
        for path, module in built.named_modules():
            if path not in self._targets:  # containers that fx made to hold a path
                object.__setattr__(module, "training", self._training)
        return built
