"""Questions about QuantizeLinear and DequantizeLinear in a graph, which all rules ask."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy.artifact import array, attribute, fixed_sizes_of, input_of

if TYPE_CHECKING:
    import onnx_ir as ir

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"
#: Operators with a weight as their second input, and a bias as the third of some.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: Operators that move numbers and change none: quantized before or after is the same.
LAYOUT = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand", "Slice", "Gather"})
#: Operators that give another number each time, so that their result is not a constant although they read none.
_RANDOM = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"})


def nodes_of(model: "ir.Model", *kinds: str) -> Iterator["ir.Node"]:
    """All nodes of some ONNX operators, in order, subgraphs included."""
    return (node for node in model.graph.all_nodes() if node.op_type in kinds and is_standard(node))


def distinct_quantizers(model: "ir.Model") -> Iterator["ir.Node"]:
    """All QuantizeLinear and DequantizeLinear, but of a pair with one scale, zero point and axis only the first."""
    for node in nodes_of(model, QUANTIZE, DEQUANTIZE):
        first = producer(node.inputs[0], QUANTIZE) if node.op_type == DEQUANTIZE else None
        if first is None or first.inputs[1:] != node.inputs[1:] or axis_of(first) != axis_of(node):
            yield node


def is_standard(node: "ir.Node") -> bool:
    """Whether an operator is one of ONNX's own domain, or ONNX Runtime's copy of QuantizeLinear or DequantizeLinear."""
    return node.domain in ("", "ai.onnx") or node.op_type in (QUANTIZE, DEQUANTIZE)


def opset_of(model: "ir.Model") -> int:
    """Version of ONNX's own operator set that a file asks for."""
    opsets = model.graph.opset_imports
    return opsets.get("", opsets.get("ai.onnx", 1))


def producer(value: "ir.Value | None", *kinds: str) -> "ir.Node | None":
    """The node that gives a value, if it is of one of the kinds; without kinds, of any."""
    node = None if value is None else value.producer()
    return node if node is not None and (not kinds or (node.op_type in kinds and is_standard(node))) else None


def consumers(node: "ir.Node") -> list["ir.Node"]:
    """The nodes that read a node's first output, each once, in order."""
    return list(dict.fromkeys(use.node for use in node.outputs[0].uses()))


class Constants:
    """Which values are the same in every run: stored in the file, or computed from such values only.

    A graph is walked once, however many values are asked about, so a rule makes one of these for a model: not kept
    for another, because answers are those of the graph as it was.
    """

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def __contains__(self, value: "ir.Value | None") -> bool:
        waiting = [value]
        while waiting:
            asked = waiting[-1]
            unknown = [] if asked is None or id(asked) in self._known else self._looked_at(asked)
            waiting.extend(unknown)
            if not unknown:
                waiting.pop()
        return value is None or self._known[id(value)]

    def _looked_at(self, value: "ir.Value") -> "list[ir.Value]":
        """Decide about a value, or name those that are to be decided before it."""
        node = value.producer()
        if value.const_value is not None or node is None or node.op_type in _RANDOM:
            self._known[id(value)] = value.const_value is not None
            return []
        inputs = [each for each in node.inputs if each is not None]
        found = [self._known.get(id(each)) for each in inputs]
        unknown = [each for each, answer in zip(inputs, found, strict=True) if answer is None]
        if unknown and False not in found:
            return unknown
        self._known[id(value)] = all(found) if node.inputs else node.op_type == "Constant"
        return []


def type_of(node: "ir.Node") -> "ir.DataType | None":
    """The type that a QuantizeLinear writes or a DequantizeLinear reads; ``None`` if the file does not say."""
    import onnx_ir as ir

    zero_point = input_of(node, 2)
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if node.op_type == QUANTIZE:
        return ir.DataType(attribute(node, "output_dtype", 0) or ir.DataType.UINT8)
    stored = node.inputs[0]
    return None if stored is None else stored.dtype


def rank_of(value: "ir.Value | None") -> int | None:
    """Number of dimensions, if it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def scale_shape(node: "ir.Node") -> tuple[int, ...] | None:
    """Shape of the scale of a QuantizeLinear or DequantizeLinear, if it is known."""
    return fixed_sizes_of(input_of(node, 1))


def is_per_axis(node: "ir.Node") -> bool:
    """Whether there is a scale for each slice along an axis."""
    shape = scale_shape(node)
    return shape is not None and len(shape) == 1 and shape[0] > 1


def axis_of(node: "ir.Node") -> int:
    """The axis of the scales of a QuantizeLinear or DequantizeLinear, counted from the front."""
    axis: int = attribute(node, "axis", 1)
    rank = rank_of(input_of(node, 0))
    return axis + rank if axis < 0 and rank is not None else axis


def block_of(node: "ir.Node") -> int:
    """How many numbers share a scale along the axis; 0 if they are not in blocks."""
    return int(attribute(node, "block_size", 0))


def dequantizer(value: "ir.Value | None", *through: str) -> "ir.Node | None":
    """The DequantizeLinear that a value comes from, through operators that only move numbers, and those named."""
    node = producer(value)
    while node is not None and node.op_type != DEQUANTIZE and (node.op_type in LAYOUT or node.op_type in through):
        node = producer(node.inputs[0])
    return node if node is not None and node.op_type == DEQUANTIZE and is_standard(node) else None


def quantized_value(dequantize: "ir.Node") -> "ir.Value | None":
    """What was quantized: before the QuantizeLinear of a pair, or the stored numbers themselves."""
    quantize = producer(dequantize.inputs[0], QUANTIZE)
    return dequantize.inputs[0] if quantize is None else quantize.inputs[0]


def is_weight(dequantize: "ir.Node", constants: Constants) -> bool:
    """Whether a DequantizeLinear gives a constant."""
    return dequantize.inputs[0] in constants


def weighted_source(value: "ir.Value | None", constants: Constants) -> "ir.Node | None":
    """The convolution or product that gives a value, directly or through a bias or batch norm."""
    node = producer(value)
    while node is not None and is_standard(node):
        if node.op_type in WEIGHTED:
            return node
        if node.op_type == "BatchNormalization":
            node = producer(node.inputs[0])
        elif node.op_type == "Add" and any(value in constants for value in node.inputs):
            node = next((producer(value) for value in node.inputs if value not in constants), None)
        else:
            return None
    return None


def same_scale(first: "ir.Node", second: "ir.Node") -> bool | None:
    """Whether two quantize or dequantize with equal scales and types; ``None`` if a scale is not in the file."""
    if first.inputs[1] is second.inputs[1] and type_of(first) == type_of(second):
        return True
    scales = array(first.inputs[1]), array(second.inputs[1])
    if scales[0] is None or scales[1] is None:
        return None
    return type_of(first) == type_of(second) and np.array_equal(scales[0], scales[1])


def type_name(node: "ir.Node") -> str:
    """The type of the quantized numbers in words, such as ``INT8``."""
    kind = type_of(node)
    return "an unknown type" if kind is None else kind.name
