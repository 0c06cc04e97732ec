"""Questions about QuantizeLinear and DequantizeLinear in a graph, which the rules of TensorRT ask."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    array,
    axis_of,
    is_standard,
    nodes_of,
    producer,
    quantized_type_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators with a weight as their second input, and a bias as the third of some.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: Operators that move numbers and change none: quantized before or after is the same.
LAYOUT = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Expand", "Slice", "Gather"})


def distinct_quantizers(model: "ir.Model") -> Iterator["ir.Node"]:
    """All QuantizeLinear and DequantizeLinear, but of a pair with one scale, zero point and axis only the first."""
    for node in nodes_of(model, QUANTIZE, DEQUANTIZE):
        first = producer(node.inputs[0], QUANTIZE) if node.op_type == DEQUANTIZE else None
        if first is None or first.inputs[1:] != node.inputs[1:] or axis_of(first) != axis_of(node):
            yield node


def rank_of(value: "ir.Value | None") -> int | None:
    """Number of dimensions, if it is known."""
    return None if value is None or value.shape is None else len(value.shape)


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
    if first.inputs[1] is second.inputs[1] and quantized_type_of(first) == quantized_type_of(second):
        return True
    scales = array(first.inputs[1]), array(second.inputs[1])
    if scales[0] is None or scales[1] is None:
        return None
    return quantized_type_of(first) == quantized_type_of(second) and np.array_equal(scales[0], scales[1])
