"""In-place writes, and what may be moved past them.

A match is replaced by one node at the place of its last node, so everything it computes moves down to there. That
is only right if no value that it reads is overwritten on the way, if nobody reads afterwards a value that it
overwrites itself, and if that is not an input and none of the model's buffers, which outlive the call. Values may share
memory: ``y = x.view(-1)`` and ``x`` do, so does a dropout in evaluation mode. The analysis never misses sharing; it may
suspect some where there is none.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property

from torch import fx, nn
from torch._ops import OpOverload

from embedl_deploy.graph.forms.activations import ACTIVATIONS
from embedl_deploy.graph.in_place import tensor_given_back
from embedl_deploy.graph.kinds import ONE_TENSOR
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.operators import is_in_place, operation

_FRESH_MODULES = (*ONE_TENSOR, nn.MultiheadAttention)
_FRESH_OPERATIONS = frozenset(
    [
        *("add", "sub", "mul", "div", "matmul", "bmm", "mm", "addmm", "linear", "scaled_dot_product_attention"),
        *(f"conv{transposed}{dims}d" for transposed in ("", "_transpose") for dims in (1, 2, 3)),
        *("batch_norm", "layer_norm", "mean", "sum", "exp", "log", "pow", "sqrt", "rsqrt"),
        *(operation for activation in ACTIVATIONS for operation in activation.operations),
        *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "cat", "stack", "clone", "lift_fresh_copy"),
        *("size", "dim"),
        *(f"{kind}{of}" for kind in ("zeros", "ones", "empty", "full", "rand", "randn") for of in ("", "_like")),
        *("new_zeros", "new_ones", "new_empty", "new_full", "arange", "masked_fill", "where"),
    ]
)


class Effects:
    """The in-place writes of one graph, and which values may share memory.

    Args:
        graph: The graph as it stands; later edits are not seen.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph

    @cached_property
    def _position(self) -> dict[fx.Node, int]:
        return {node: i for i, node in enumerate(self._graph.nodes)}

    @cached_property
    def _writes(self) -> list[tuple[fx.Node, fx.Node]]:
        """(writer, value that it overwrites), in graph order."""
        return [(node, value) for node in self._position for value in written_values(node)]

    @cached_property
    def _write_positions(self) -> list[int]:
        return [self._position[node] for node, _ in self._writes]

    @cached_property
    def _roots(self) -> dict[fx.Node, frozenset[fx.Node]]:
        """For each value, the values whose memory it may use."""
        writing = {node for node, _ in self._writes}
        roots: dict[fx.Node, frozenset[fx.Node]] = {}
        held: dict[str, fx.Node] = {}
        for node in self._position:
            if node.op == "get_attr":  # read twice, it is one tensor
                roots[node] = frozenset((held.setdefault(str(node.target), node),))
            elif node.op == "placeholder" or (node not in writing and _is_fresh(node)):
                roots[node] = frozenset((node,))
            else:
                given = tensor_given_back(node) if node in writing else None
                inputs = [roots[n] for n in (node.all_input_nodes if given is None else [given])]
                roots[node] = (inputs[0] if len(inputs) == 1 else frozenset().union(*inputs)) or frozenset((node,))
        return roots

    @cached_property
    def _readers(self) -> dict[fx.Node, list[tuple[fx.Node, fx.Node]]]:
        """For each written memory, (reader, value that it reads)."""
        watched = frozenset().union(*(self._roots[value] for _, value in self._writes))
        readers: dict[fx.Node, list[tuple[fx.Node, fx.Node]]] = {}
        for node in self._position:
            for value in node.all_input_nodes:
                for root in self._roots[value] & watched:
                    readers.setdefault(root, []).append((node, value))
        return readers

    def hazard(self, nodes: Iterable[fx.Node]) -> str | None:
        """Why the nodes cannot be computed at the place of the last of them, or ``None`` if they can."""
        if not self._writes:
            return None
        inside = set(nodes)
        first = min(self._position[n] for n in inside)
        last = max(self._position[n] for n in inside)
        between = range(bisect_left(self._write_positions, first), bisect_right(self._write_positions, last))
        for writer, value in (self._writes[i] for i in between):
            if writer in inside:
                for root in self._roots[value]:
                    if root.op == "get_attr":
                        return f"{writer.name} changes the model's {str(root.target)!r} in place"
                    if root.op == "placeholder" and get_module(writer) is None:  # a module in it continues writing
                        return f"{writer.name} changes the input {root.name!r} in place"
                reader = self._reads_after(writer, value, inside)
                if reader is not None:
                    return f"{writer.name} changes {value.name} in place, and {reader.name} reads it afterwards"
            else:
                for node in inside:
                    if self._position[node] < self._position[writer] and self._touches(node, value):
                        return f"{writer.name} changes {value.name} in place between {node.name} and the end"
        return None

    def _touches(self, node: fx.Node, value: fx.Node) -> bool:
        roots = self._roots[value]
        return any(self._roots[n] & roots for n in (node, *node.all_input_nodes))

    def _reads_after(self, writer: fx.Node, value: fx.Node, inside: set[fx.Node]) -> fx.Node | None:
        at = self._position[writer]
        for root in self._roots[value]:
            for reader, read in self._readers.get(root, ()):
                if reader not in inside and self._position[reader] > at and self._position[read] < at:
                    return reader
        return None

    def written_attributes(self) -> frozenset[str]:
        """The model's own tensors that the graph may overwrite, as its ``get_attr`` nodes name them."""
        roots = (root for _, value in self._writes for root in self._roots[value])
        return frozenset(str(root.target) for root in roots if root.op == "get_attr")

    def memory_of(self, node: fx.Node) -> frozenset[fx.Node]:
        """The values whose memory a value may lie in; the value itself if it is new."""
        return self._roots[node]

    def owns_its_memory(self, node: fx.Node) -> bool:
        """Whether a value is computed, into memory that no other value shares with it when it is made."""
        return node.op.startswith("call_") and self._roots[node] == frozenset((node,))

    def written_after(self, node: fx.Node) -> Iterator[fx.Node]:
        """The nodes after ``node`` that overwrite memory that its value, or a value it was made from, may use."""
        for writer, value in self._writes:
            if self._position[writer] > self._position[node] and self._touches(node, value):
                yield writer

    def last_write(self, node: fx.Node, before: fx.Node) -> fx.Node | None:
        """The last node that overwrites memory that the value of ``node`` may use, after it and before ``before``."""
        found = None
        for writer, value in self._writes:
            if self._position[node] < self._position[writer] < self._position[before]:
                found = writer if self._roots[node] & self._roots[value] else found
        return found


def overwrites(node: fx.Node) -> bool:
    """Whether a node changes one of its inputs in place."""
    return bool(written_values(node))


def written_values(node: fx.Node) -> list[fx.Node]:
    """The input values that a node overwrites."""
    out = node.kwargs.get("out")
    values = [value for value in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(value, fx.Node)]
    if _writes_first_input(node) and node.all_input_nodes:
        values.append(node.all_input_nodes[0])
    return values


def _writes_first_input(node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(get_module(node), "inplace", False))
    if node.op not in ("call_method", "call_function"):
        return False
    if isinstance(node.target, OpOverload):
        return bool(node.target._schema.is_mutable)
    if is_in_place(node) or node.kwargs.get("inplace") is True:
        return True
    return len(node.args) > 1 and node.args[-1] is True and getattr(get_module(node), "inplace", False)


def _is_fresh(node: fx.Node) -> bool:
    """Whether the node's value surely lies in memory of its own."""
    if node.op == "call_module":
        module = get_module(node)
        return isinstance(module, _FRESH_MODULES) or bool(getattr(module, "makes_new_tensor", False))
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim", "dtype", "device")
    return operation(node) in _FRESH_OPERATIONS
