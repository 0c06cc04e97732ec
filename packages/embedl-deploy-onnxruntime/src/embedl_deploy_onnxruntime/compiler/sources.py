"""Finds the nodes of a file that a node of its optimized model computes.

Fused nodes have new names, and values between them too. What stays is: the name of a node, with something added to it;
the names of values that one kernel hands to another, mostly; and which values follow from which. So a node of the
optimized model computes, of the file,

1. the node that it has the name of, or whose result it writes or has the name of, with what dequantizes for it;
2. where it is another operator than the one whose result it writes, everything between that result and values that the
   optimized model still has;
3. what follows in the file and is nowhere in the optimized model: an activation function that a convolution applies,
   the rounding of its result.

What the runtime has added, such as a change of layout, counts for the node that reads it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from embedl_deploy.engine import LayerKind
from embedl_deploy_onnxruntime.compiler.kinds import MOVES, kind_of

if TYPE_CHECKING:
    import onnx_ir as ir

#: What the runtime adds to the name of a node, or of a value, that it makes a node of.
_ADDED = re.compile(r"(_token_\d+|/[\w/]*|_nchwc|_nhwc|_quant|_kernel)$")


class Sources:
    """The nodes of a file that each node of its optimized model computes.

    Args:
        model: The file.
        optimized: The nodes of the optimized model, in the order in which they run.
    """

    def __init__(self, model: "ir.Model", optimized: "Sequence[ir.Node]") -> None:
        self.optimized = optimized
        self.nodes = [node for node in model.graph if node.name]
        self.by_name = {str(node.name): node for node in self.nodes}
        self.by_value = {str(value.name): node for node in self.nodes for value in node.outputs if value.name}
        self.kept = {str(value.name) for node in optimized for value in (*node.inputs, *node.outputs) if value}
        self.found: dict[ir.Node, dict[ir.Node, None]] = {node: {} for node in optimized}
        self.owner: dict[ir.Node, ir.Node] = {}
        self._take_what_is_named()
        self._take_what_is_between()
        self._take_what_follows()
        self._hand_to_additions()

    def names_of(self, node: "ir.Node") -> tuple[str, ...]:
        """Names of the nodes of the file that a node of the optimized model computes, in the file's order."""
        own = self.found[node]
        return tuple(str(each.name) for each in self.nodes if each in own)

    def _take(self, node: "ir.Node", source: "ir.Node") -> None:
        self.found[node][source] = None
        if source.op_type != "DequantizeLinear":
            self.owner.setdefault(source, node)
        for value in source.inputs:
            producer = None if value is None else value.producer()
            is_one = producer is not None and producer.name and producer.op_type == "DequantizeLinear"
            if producer is not None and is_one and str(producer.outputs[0].name) not in self.kept:
                self.found[node][producer] = None

    def _take_what_is_named(self) -> None:
        for node in self.optimized:
            source = self._named(str(node.name or ""), self.by_name)
            if source is not None:
                self._take(node, source)

    @staticmethod
    def _named(name: str, among: "Mapping[str, ir.Node]") -> "ir.Node | None":
        """What has a name, or had it before the runtime added something."""
        while name not in among:
            shorter = _ADDED.sub("", name)
            if shorter == name:
                return None
            name = shorter
        return among[name]

    def _take_what_is_between(self) -> None:
        for node in self.optimized:
            for name in (str(node.name or ""), *(str(value.name) for value in node.outputs)):
                source = self._named(name, self.by_value)
                if source is None or self.owner.get(source, node) is not node:
                    continue
                if node.op_type in MOVES and source.op_type != node.op_type:
                    continue  # another layout of what the node before has computed
                self._take(node, source)
                if source.op_type != node.op_type:
                    for inner in self._behind(source, node):
                        self._take(node, inner)

    def _behind(self, source: "ir.Node", node: "ir.Node") -> "Iterator[ir.Node]":
        """Nodes that a result follows from, up to values that the optimized model has, or that another computes."""
        waiting, seen = [source], {source}
        while waiting:
            for value in waiting.pop().inputs:
                producer = None if value is None or str(value.name) in self.kept else value.producer()
                if producer is None or producer in seen or self.owner.get(producer, node) is not node:
                    continue
                seen.add(producer)
                if producer.name:
                    yield producer
                waiting.append(producer)

    def _take_what_follows(self) -> None:
        place = {node: index for index, node in enumerate(self.optimized)}
        taken = {source for sources in self.found.values() for source in sources}
        for source in self.nodes:
            if source in taken:
                continue
            producers = [value.producer() for value in source.inputs if value is not None]
            owners = [self.owner[producer] for producer in producers if producer in self.owner]
            if owners:
                self._take(max(owners, key=place.__getitem__), source)

    def _hand_to_additions(self) -> None:
        """Give what the runtime has added the nodes of what reads it, or of what it reads."""
        for node in reversed(self.optimized):
            if self.found[node] or kind_of(node.op_type) is LayerKind.OTHER:
                continue
            readers = [use.node for value in node.outputs for use in value.uses() if use.node in self.found]
            producers = [value.producer() for value in node.inputs if value is not None]
            around = [*readers, *(each for each in producers if each is not None and each in self.found)]
            self.found[node] = dict(next((self.found[each] for each in around if self.found[each]), {}))
