"""The values that traced nodes have on the example inputs, known while the graph is being built.

Nothing is computed until somebody asks. Then the nodes that lead to the one that is asked about are run on fake
tensors, which have type, shape and dtype and no numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from embedl_deploy.graph.shapes import FakeInterpreter, fake_of


class UnknownValueError(Exception):
    """Nothing is known of a value."""


def class_of(value: Any) -> type:
    """The class of a value; that of a tensor for a fake one."""
    return torch.Tensor if isinstance(value, FakeTensor) else type(value)


class ExampleValues:
    """The values of a graph's nodes on example inputs, as fake tensors.

    Args:
        root: The module that is traced.
        graph: Its graph, which may grow.
        inputs: The example inputs by name of the placeholder; ``None`` if there are none. An input without a default
            is then taken for a tensor.

    Attributes:
        taken_for_tensors: Names of the inputs that somebody asked about and that were taken for tensors.
        computing: Whether a value is being found out, by calling modules of the model on fake tensors.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, inputs: dict[str, Any] | None) -> None:
        self.taken_for_tensors: list[str] = []
        self.computing = False
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._interpreter = FakeInterpreter(root, self._mode, graph)
        self._inputs = inputs
        self._known: dict[fx.Node, Any] = self._interpreter.env
        self._containers: set[Any] = set()
        for node in graph.find_nodes(op="placeholder"):
            self._note_container(node, (inputs or {}).get(str(node.target)))

    def of(self, node: fx.Node) -> Any:
        """The value of a node.

        Raises:
            UnknownValueError: It follows from an input that is not known, or cannot be computed on fake tensors.
        """
        waiting = [node]
        while waiting:
            current = waiting[-1]
            missing = [n for n in current.all_input_nodes if n not in self._known]
            waiting += missing
            if not missing:
                waiting.pop()
                if current not in self._known:
                    self._known[current] = self._compute(current)
        return self._known[node]

    def class_of(self, node: fx.Node) -> type:
        """The class of a node's value; for errors see :meth:`of`."""
        if node.op == "get_attr":
            with self._finding_out():
                return type(self._interpreter.fetch_attr(str(node.target)))
        return torch.Tensor if self._is_taken_for_a_tensor(node) else class_of(self.of(node))

    def has(self, node: fx.Node, name: str) -> bool:
        """Whether a node's value has an attribute; for errors see :meth:`of`."""
        return hasattr(torch.Tensor if self._is_taken_for_a_tensor(node) else self.of(node), name)

    def may_be_none(self, node: fx.Node) -> bool:
        """Whether a new node takes ``None`` out of an input that is a container, as far as that is known.

        Without example inputs, only what is not there in the keyword inputs that forward does not name can be.
        """
        source = node.args[0] if node.op.startswith("call_") and node.args else None
        if source in self._containers:
            try:
                value = self.of(node)
            except UnknownValueError:
                return False
            self._note_container(node, value)
            return value is None
        if self._inputs is not None or not (isinstance(source, fx.Node) and str(source.target).startswith("**")):
            return False
        return (node.target, *node.args[2:]) in (("get",), ("get", None), ("pop", None))

    def _note_container(self, node: fx.Node, value: Any) -> None:
        if value is not None and not isinstance(value, (torch.Tensor, bool, int, float, str)):
            self._containers.add(node)

    def _is_taken_for_a_tensor(self, node: fx.Node) -> bool:
        name = str(node.target)
        taken = self._inputs is None and node.op == "placeholder" and not node.args and not name.startswith("*")
        if taken and name not in self.taken_for_tensors:
            self.taken_for_tensors.append(name)
        return taken

    def _compute(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            if self._inputs is None or node.target not in self._inputs:
                raise UnknownValueError(node.name)
            value = self._inputs[node.target]
            return pytree.tree_map_only(torch.Tensor, lambda x: fake_of(self._mode, x), value)
        try:
            with self._finding_out(), self._mode, torch.no_grad():
                return self._interpreter.run_node(node)
        except Exception as error:  # operators raise what they like on fake tensors
            raise UnknownValueError(node.name) from error

    @contextmanager
    def _finding_out(self) -> Iterator[None]:
        """Calls and attributes of modules within the block are not part of what is traced."""
        self.computing = True
        try:
            yield
        finally:
            self.computing = False
