"""Running what ONNX Runtime has no 16-bit kernels for: in float32, each result rounded to the type that the file has.

Of bfloat16 it has hardly any on a CPU, and of float16 not all. A 16-bit kernel computes the same: products and sums in
float32, rounded once.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def compute_in_float32(model: "ir.Model") -> bool:
    """Let each operator take and give float32 for 16-bit floats, with a rounding ``Cast`` after it, in place.

    Inputs and outputs of the model stay as they are in float16, and become float32 in bfloat16, which numpy lacks.

    Returns:
        Whether there is an operator on 16-bit floats in the model.
    """
    import onnx_ir as ir

    sixteen = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    found = False
    for node in list(model.graph.all_nodes()):
        inner = any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in _attributes(node)
        )
        narrow = [value for value in node.inputs if value is not None and value.dtype in sixteen]
        if node.op_type == "Cast" or inner or not narrow:
            continue
        found = True
        wide = {value: _cast_before(node, value) for value in dict.fromkeys(narrow)}
        for index, value in enumerate(node.inputs):
            if value in wide:
                node.replace_input_with(index, wide[value])
        for value in node.outputs:
            if value.dtype in sixteen:
                _round_after(node, value)
    _take_and_give_float32(model.graph)
    return found


def _attributes(node: "ir.Node") -> list["ir.Attr"]:
    return [attribute for attribute in node.attributes.values() if not attribute.is_ref()]


def _cast(value: "ir.Value", dtype: "ir.DataType") -> "ir.Node":
    import onnx_ir as ir

    attributes = [ir.AttrInt64("to", int(dtype))]
    output = ir.Value(name=None, type=ir.TensorType(dtype), shape=value.shape)
    return ir.Node("", "Cast", [value], attributes, outputs=[output])


def _cast_before(node: "ir.Node", value: "ir.Value") -> "ir.Value":
    import onnx_ir as ir

    cast = _cast(value, ir.DataType.FLOAT)
    assert node.graph is not None
    node.graph.insert_before(node, cast)
    return cast.outputs[0]


def _round_after(node: "ir.Node", value: "ir.Value") -> None:
    """Let everybody who reads a value read it rounded; it is in float32 itself from now on."""
    import onnx_ir as ir

    graph, dtype = node.graph, value.dtype
    assert graph is not None
    assert dtype is not None
    cast = _cast(value, dtype)
    rounded, name = cast.outputs[0], value.name
    for user, index in tuple(value.uses()):
        if user is not cast:
            user.replace_input_with(index, rounded)
    graph.insert_after(node, cast)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = rounded
    value.dtype = ir.DataType.FLOAT
    value.name, rounded.name = f"{name}.float32", name


def _take_and_give_float32(graph: "ir.Graph") -> None:
    """Let inputs and outputs in bfloat16 be float32, of the same names."""
    import onnx_ir as ir

    first = graph[0] if len(graph) else None
    for value in graph.inputs:
        if value.dtype is ir.DataType.BFLOAT16 and first is not None:
            cast = _cast(value, ir.DataType.BFLOAT16)
            for user, index in tuple(value.uses()):
                if user is not cast:
                    user.replace_input_with(index, cast.outputs[0])
            graph.insert_before(first, cast)
            value.dtype = ir.DataType.FLOAT
    for index, value in enumerate(graph.outputs):
        if value.dtype is ir.DataType.BFLOAT16:
            cast = _cast(value, ir.DataType.FLOAT)
            graph.append(cast)
            value.name, cast.outputs[0].name = f"{value.name}.bfloat16", value.name
            graph.outputs[index] = cast.outputs[0]
