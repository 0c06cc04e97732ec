"""A file without one of its DynamicQuantizeLinear: what reads its integers computes with the values they were made of.

Where an integer product reads them, that becomes the product of those values with the weight's integers:

    MatMulInteger(q, w, z) · (s · s_w)    becomes    MatMul(x, w) · (1 · s_w)
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

#: Gives integers, their scale and their zero point.
DYNAMIC = "DynamicQuantizeLinear"


def pass_by_dynamic(quantize: "ir.Node") -> bool:
    """Have all that reads what a node has quantized read, or multiply, what it was made of.

    Returns:
        Whether that was done; nothing is changed if anything but DequantizeLinear and MatMulInteger reads the integers.
    """
    from onnx_ir.convenience import replace_all_uses_with

    values, scale, zero_point = quantize.outputs
    source, graph = quantize.inputs[0], quantize.graph
    readers = list(values.consumers())
    if source is None or graph is None or any(value.is_graph_output() for value in quantize.outputs):
        return False
    dequantizing = [node for node in readers if list(node.inputs) == [values, scale, zero_point]]
    multiplying = [node for node in readers if _multiplies(node, values, zero_point)]
    if len(dequantizing) + len(multiplying) != len(readers):
        return False
    for node in dequantizing:
        replace_all_uses_with(node.outputs[0], source, replace_graph_outputs=True)
    for node in multiplying:
        _multiply_floats(node, source)
    for use in [use for use in scale.uses() if use.node not in dequantizing]:
        use.node.replace_input_with(use.idx, _one(use.node))
    return True


def _multiplies(node: "ir.Node", values: "ir.Value", zero_point: "ir.Value") -> bool:
    """Whether it multiplies the integers by a weight without zero point."""
    inputs = list(node.inputs)
    return node.op_type == "MatMulInteger" and inputs[0] is values and inputs[2:] == [zero_point]


def _multiply_floats(node: "ir.Node", source: "ir.Value") -> None:
    import onnx_ir as ir
    from onnx_ir.convenience import replace_all_uses_with

    assert node.graph is not None  # it reads a value of the graph
    to_float = ir.AttrInt64("to", int(ir.DataType.FLOAT))
    weight = ir.Node("", "Cast", [node.inputs[1]], attributes=[to_float])
    product = ir.Node("", "MatMul", [source, weight.outputs[0]])
    product.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    node.graph.insert_before(node, [weight, product])
    replace_all_uses_with(node.outputs[0], product.outputs[0])


def _one(reader: "ir.Node") -> "ir.Value":
    import onnx_ir as ir

    assert reader.graph is not None  # it reads a value of the graph
    tensor = ir.Tensor(np.ones((), np.float32))
    made = ir.Node("", "Constant", [], attributes=[ir.AttrTensor("value", tensor)])
    reader.graph.insert_before(reader, made)
    return made.outputs[0]
