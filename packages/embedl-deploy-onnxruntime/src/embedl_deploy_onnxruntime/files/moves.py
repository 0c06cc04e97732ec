"""Operators that only move values, on integers.

    DQ → Split → …    becomes    Split → DQ, DQ → …

which gives the same numbers. The runtime moves DequantizeLinear forward through some of them by itself, but not where
the result is quantized again by one of several readers, and through none of the others; then the operators behind them
do not see a quantized input, and run in float.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_MOVES = frozenset(
    {
        *("DepthToSpace", "Expand", "Flatten", "Gather", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
        *("Transpose", "Unsqueeze"),
    }
)
#: Which input of ``Pad`` is the value that it pads with.
_VALUE = 2


def move_on_integers(model: "ir.Model") -> None:
    """Move DequantizeLinear of unsigned activations behind operators that move values.

    Signed ones stay: on x86 the runtime makes them unsigned only where both quantizers are next to each other.

    Args:
        model: Changed in place.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        if node.domain or not node.inputs or not (node.op_type in _MOVES or _pads(node)):
            continue
        value = node.inputs[0]
        before = None if value is None else value.producer()
        if before is None or before.op_type != "DequantizeLinear" or len(before.inputs) < 3:
            continue
        stored, scale, zero_point = before.inputs[:3]
        if stored is None or stored.producer() is None or scale is None or zero_point is None:
            continue  # a constant: the weight of an operator
        is_scalar = scale.const_value is not None and scale.const_value.size == 1 and scale.const_value.shape == ()
        moved = node.outputs[:1] if node.op_type == "MaxPool" else node.outputs  # its second one has indices
        if not is_scalar or zero_point.dtype is not ir.DataType.UINT8 or not all(map(_is_read, moved)):
            continue
        node.replace_input_with(0, stored)
        if node.op_type == "Pad" and _is_constant(node):
            node.resize_inputs(max(_VALUE + 1, len(node.inputs)))
            node.replace_input_with(_VALUE, zero_point)
        for output in moved:
            _dequantize(model, node, output, before)


def _pads(node: "ir.Node") -> bool:
    """Whether a node pads with values of its input (by reflection, by the edge, or around it), or with zeros."""
    if node.op_type != "Pad" or not _is_constant(node):
        return node.op_type == "Pad"
    value = node.inputs[_VALUE] if len(node.inputs) > _VALUE else None
    return value is None or (value.const_value is not None and not value.const_value.numpy().any())


def _is_constant(pad: "ir.Node") -> bool:
    return pad.attributes.get_string("mode", "constant") == "constant"


def _is_read(value: "ir.Value") -> bool:
    """Whether anything reads a value: those of ``Split`` that nothing does are left alone."""
    return bool(list(value.uses())) or value.is_graph_output()


def _dequantize(model: "ir.Model", node: "ir.Node", output: "ir.Value", before: "ir.Node") -> None:
    """Hand on an output of ``node``, an integer now, through a copy of the DequantizeLinear that stood before it."""
    import onnx_ir as ir

    after = ir.Node("", "DequantizeLinear", [output, *before.inputs[1:]], name=f"{output.name}_dequantize")
    result = after.outputs[0]
    result.name, result.shape, result.type = output.name, output.shape, output.type
    after.metadata_props.update(before.metadata_props)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    after.replace_input_with(0, output)
    output.name, output.type = f"{output.name}_quantized", ir.TensorType(ir.DataType.UINT8)
    model.graph.insert_after(node, after)
