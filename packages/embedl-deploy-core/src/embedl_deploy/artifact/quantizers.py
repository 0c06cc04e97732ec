"""Questions about the nodes of a file, and about QuantizeLinear and DequantizeLinear among them, that rules ask."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from embedl_deploy.artifact.questions import attribute, fixed_sizes_of, input_of, sizes_of
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir

#: The operator that rounds to a grid.
QUANTIZE = "QuantizeLinear"
#: The operator that gives the numbers back in float.
DEQUANTIZE = "DequantizeLinear"


@checked
def is_standard(node: "ir.Node") -> bool:
    """Whether an operator is one of ONNX's own domain, or ONNX Runtime's copy of QuantizeLinear or DequantizeLinear."""
    return node.domain in ("", "ai.onnx") or node.op_type in (QUANTIZE, DEQUANTIZE)


@checked
def nodes_of(model: "ir.Model", *kinds: str) -> "Iterator[ir.Node]":
    """All nodes of some ONNX operators, in order, subgraphs included."""
    return (node for node in model.graph.all_nodes() if node.op_type in kinds and is_standard(node))


@checked
def opset_of(model: "ir.Model") -> int:
    """Version of ONNX's own operator set that a file asks for."""
    opsets = model.graph.opset_imports
    return opsets.get("", opsets.get("ai.onnx", 1))


@checked
def producer(value: "ir.Value | None", *kinds: str) -> "ir.Node | None":
    """The node that gives a value, if it is of one of the kinds; without kinds, of any."""
    node = None if value is None else value.producer()
    return node if node is not None and (not kinds or (node.op_type in kinds and is_standard(node))) else None


@checked
def consumers(node: "ir.Node") -> "list[ir.Node]":
    """The nodes that read a node's first output, each once, in order."""
    return list(dict.fromkeys(use.node for use in node.outputs[0].uses()))


@checked
def quantized_type_of(node: "ir.Node") -> "ir.DataType | None":
    """The type that a QuantizeLinear writes or a DequantizeLinear reads; ``None`` if the file does not say."""
    import onnx_ir as ir

    zero_point = input_of(node, 2)
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if node.op_type == QUANTIZE:
        return ir.DataType(attribute(node, "output_dtype", 0) or ir.DataType.UINT8)
    stored = node.inputs[0]
    return None if stored is None else stored.dtype


@checked
def quantized_type_name(node: "ir.Node") -> str:
    """The type of the quantized numbers in words, such as ``INT8``."""
    kind = quantized_type_of(node)
    return "an unknown type" if kind is None else kind.name


@checked
def scale_shape(node: "ir.Node") -> tuple[int, ...] | None:
    """Shape of the scale of a QuantizeLinear or DequantizeLinear, if it is known."""
    return fixed_sizes_of(input_of(node, 1))


@checked
def is_per_axis(node: "ir.Node") -> bool:
    """Whether a QuantizeLinear or DequantizeLinear has a scale for each slice along an axis."""
    shape = scale_shape(node)
    return shape is not None and len(shape) == 1 and shape[0] > 1


@checked
def axis_of(node: "ir.Node") -> int:
    """The axis of the scales of a QuantizeLinear or DequantizeLinear, counted from the front."""
    axis: int = attribute(node, "axis", 1)
    sizes = sizes_of(input_of(node, 0))
    return axis + len(sizes) if axis < 0 and sizes is not None else axis


@checked
def block_of(node: "ir.Node") -> int:
    """How many numbers share a scale along the axis; 0 if they are not in blocks."""
    return int(attribute(node, "block_size", 0))
