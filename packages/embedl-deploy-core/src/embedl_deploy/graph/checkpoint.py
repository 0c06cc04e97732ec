"""Undoing edits: a checkpoint remembers a graph module and can bring it back.

It copies the graph but no tensor, so taking one costs a walk over the graph. What it cannot undo is a write into
the values of an existing parameter or buffer.
"""

import copy

from torch import fx, nn


class Checkpoint:
    """The state of a graph module's graph and module tree at the time of construction."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module
        self._nodes = list(graph_module.graph.nodes)
        self._graph = copy.deepcopy(graph_module.graph)
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
        graph = copy.deepcopy(self._graph)
        self._graph_module.graph = graph
        return dict(zip(self._nodes, graph.nodes, strict=True))
