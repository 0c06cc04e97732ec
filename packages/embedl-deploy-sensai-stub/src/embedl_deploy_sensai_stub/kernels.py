"""Which ONNX nodes the engine runs as one: a kernel is an operator and what is computed with its result.

    Conv → [Relu],   Gemm → [Relu],   MatMul → [Add of a constant] → [Relu],   Add → [Relu],   MaxPool,
    GlobalAveragePool or ReduceMean

A batch norm is part of the convolution's weight in a quantized file. Quantizers, and what changes the shape of a tensor
only, are not kernels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedl_deploy.artifact import array, input_of

if TYPE_CHECKING:
    import onnx_ir as ir

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
#: Operators after which the same numbers stand in a tensor of another shape.
RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
WEIGHTED = ("Conv", "Gemm", "MatMul")
AVERAGES = ("GlobalAveragePool", "ReduceMean")
_HEADS = frozenset({*WEIGHTED, *AVERAGES, "Add", "MaxPool"})
#: What can follow, and what it can follow. A constant is added after MatMul only: the others have a bias.
BEHIND = {
    "Relu": (*WEIGHTED, "Add"),
    "Add": ("MatMul",),
}


@dataclass(frozen=True, eq=False)
class Kernel:
    """Nodes that run as one.

    Attributes:
        nodes: The operator that it is named after, then what follows.
    """

    nodes: tuple["ir.Node", ...]

    @property
    def head(self) -> "ir.Node":
        """The operator."""
        return self.nodes[0]

    @property
    def output(self) -> "ir.Value":
        """The tensor that it writes."""
        return self.nodes[-1].outputs[0]

    @property
    def inputs(self) -> "tuple[ir.Value, ...]":
        """The tensors that it reads, without weights and other constants."""
        count = 2 if self.head.op_type == "Add" else 1
        return tuple(value for value in self.head.inputs[:count] if value is not None)


def computes(node: "ir.Node") -> bool:
    """Whether a node is something for the engine to run, and not for a compiler: it works on data, in numbers."""
    if node.op_type in RESHAPES or node.op_type in QUANTIZERS or node.op_type == "Constant":
        return False
    if all(value is None or value.const_value is not None for value in node.inputs):
        return False
    types = [value.dtype for value in node.outputs]
    return not all(kind is not None and kind.name in ("INT64", "INT32", "BOOL") for kind in types)


def adds_constant(node: "ir.Node") -> bool:
    """Whether a sum is that of a tensor and a constant, such as a bias."""
    return node.op_type == "Add" and any(array(input_of(node, index)) is not None for index in (0, 1))


def node_before(node: "ir.Node") -> "ir.Node | None":
    """The node with whose result this one is computed in the same kernel; ``None`` if it starts one, or is in none."""
    if node.op_type not in BEHIND or (node.op_type == "Add" and not adds_constant(node)):
        return None
    for value in node.inputs:
        maker = None if value is None else value.producer()
        if value is not None and maker is not None and maker.op_type in BEHIND[node.op_type]:
            return maker if len(value.uses()) == 1 and not value.is_graph_output() else None
    return None


def kernels_of(model: "ir.Model") -> Iterator[Kernel]:
    """The kernels of a file, in the order of their operators; nodes that are in none are left out."""
    for node in model.graph:
        if node.op_type in _HEADS and computes(node) and not adds_constant(node):
            nodes = [node]
            while (behind := _node_behind(nodes[-1])) is not None:
                nodes.append(behind)
            yield Kernel(tuple(nodes))


def _node_behind(node: "ir.Node") -> "ir.Node | None":
    users = [use.node for use in node.outputs[0].uses()]
    return users[0] if len(users) == 1 and node_before(users[0]) is node else None
