"""A file without one of its QuantizeLinear with a constant scale: values pass as they are.

Between it and DequantizeLinear, operators may move the integers; they move the values then. A DequantizeLinear of
another scale, into which a factor has been folded, becomes the factor:

    Flatten(Q(x, s)) → DQ(c · s)    becomes    c · Flatten(x)
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy.artifact import DEQUANTIZE
from embedl_deploy.artifact.moves import MOVES
from embedl_deploy.export.file_grid import IN_BLOCKS, Grid, grid_in

if TYPE_CHECKING:
    import onnx_ir as ir

#: Which input of ``Pad`` is the value that it pads with.
_VALUE = 2


def pass_by_static(quantize: "ir.Node") -> Grid | None:
    """Have all that reads what a node has quantized, once it is dequantized, read what it was made of.

    Args:
        quantize: The node; what reads it is changed in place.

    Returns:
        The grid; ``None`` if what reads the integers computes with them, or dequantizes them by another zero point or
        format. The file is of no use then.
    """
    source, grid = quantize.inputs[0], grid_in(quantize)
    if grid is None or source is None or not _pass(quantize.outputs[0], source, grid):
        return None
    return grid


def _pass(integers: "ir.Value", floats: "ir.Value", grid: Grid) -> bool:
    """Have what reads integers of a grid read floats; whether that can be done."""
    from onnx_ir.convenience import replace_all_uses_with

    if integers.is_graph_output():
        return False
    for use in list(integers.uses()):
        reader = use.node
        if reader.op_type == DEQUANTIZE:
            value = _dequantized(reader, floats, grid)
            if value is None:
                return False
            replace_all_uses_with(reader.outputs[0], value, replace_graph_outputs=True)
            assert reader.graph is not None  # it reads a value of the graph
            reader.graph.remove(reader, safe=True)
        elif reader.op_type in MOVES and reader.op_type != "Cast" and use.idx == 0:
            if not _pads_with_zero(reader, grid):
                return False
            reader.replace_input_with(0, floats)
            moved = reader.outputs[:1] if reader.op_type == "MaxPool" else reader.outputs  # its second has indices
            for value in moved:
                value.type = floats.type
                if not _pass(value, value, grid):
                    return False
        else:
            return False
    return True


def _dequantized(node: "ir.Node", floats: "ir.Value", grid: Grid) -> "ir.Value | None":
    """What a DequantizeLinear gives of floats that pass as they are; ``None`` if it is of another grid."""
    import onnx_ir as ir

    own = grid_in(node)
    if own == grid:
        return floats
    if own is None or own.format == IN_BLOCKS or len(own.scales) != 1 or replace(own, scales=grid.scales) != grid:
        return None
    assert node.graph is not None  # it reads a value of the graph
    dtype = np.float32 if floats.dtype is None else floats.dtype.numpy()
    factor = ir.Tensor(np.asarray(own.scales[0] / grid.scales[0], dtype))
    constant = ir.Node("", "Constant", [], attributes=[ir.AttrTensor("value", factor)])
    product = ir.Node("", "Mul", [floats, constant.outputs[0]])
    product.outputs[0].type, product.outputs[0].shape = floats.type, floats.shape
    node.graph.insert_before(node, [constant, product])
    return product.outputs[0]


def _pads_with_zero(node: "ir.Node", grid: Grid) -> bool:
    """Whether a node gives nothing but values of its input and zeros; where it pads with the zero point, zero it is."""
    from onnx_ir.convenience import get_const_tensor

    value = node.inputs[_VALUE] if node.op_type == "Pad" and len(node.inputs) > _VALUE else None
    if value is None:
        return True
    number = get_const_tensor(value)
    if number is None or number.numpy().reshape(-1).astype(np.float64).tolist() != list(grid.zeros):
        return False
    node.replace_input_with(_VALUE, None)
    return True
