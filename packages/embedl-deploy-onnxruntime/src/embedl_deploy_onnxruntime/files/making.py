"""Makes nodes and constants in a file."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir


def initializer(
    model: "ir.Model", name: str, value: npt.NDArray[Any], dtype: "ir.DataType | None" = None
) -> "ir.Value":
    """A stored tensor, under a name that is not taken yet.

    Args:
        model: Gets it.
        name: The name, or, where there is one of that name, its beginning.
        value: The numbers.
        dtype: Their type, where that of ``value`` is wider.
    """
    import onnx_ir as ir

    unique = name
    while unique in model.graph.initializers:
        unique += "_"
    tensor = ir.Tensor(value, dtype=dtype, name=unique)
    made = ir.Value(name=unique, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
    model.graph.register_initializer(made)
    return made


def node_like(
    model: "ir.Model",
    before: "ir.Node",
    kind: str,
    inputs: "list[ir.Value | None]",
    dtype: "ir.DataType",
    **attributes: int,
) -> "ir.Value":
    """What a new node gives, of the same module as ``before``, in front of which it stands.

    Args:
        model: Gets it.
        before: The node that it is made for.
        kind: Its operator.
        inputs: What it reads.
        dtype: The type of what it gives.
        **attributes: Its attributes.
    """
    import onnx_ir as ir

    made = [ir.AttrInt64(name, value) for name, value in attributes.items()]
    number = sum((node.name or "").startswith(f"{before.name}_{kind}") for node in model.graph)
    name = f"{before.name}_{kind}" + (f"_{number}" if number else "")
    node = ir.Node("", kind, inputs, attributes=made, name=name)
    node.outputs[0].name = name
    node.outputs[0].type = ir.TensorType(dtype)
    node.metadata_props.update(before.metadata_props)
    model.graph.insert_before(before, node)
    return node.outputs[0]


def dequantized(
    model: "ir.Model", reader: "ir.Node", name: str, integers: npt.NDArray[Any], scale: npt.NDArray[Any]
) -> "ir.Value":
    """What DequantizeLinear gives of stored integers with the zero point 0, in front of ``reader``, of its module.

    Args:
        model: Gets it.
        reader: The node that it is made for.
        name: The beginning of all names.
        integers: The numbers.
        scale: Of shape (), or (channels,) for those along dimension 0; its type is that of what is given.
    """
    import onnx_ir as ir

    tensors = {"quantized": integers, "scale": scale, "zero_point": np.zeros(scale.shape, integers.dtype)}
    inputs = [initializer(model, f"{name}_{part}", values) for part, values in tensors.items()]
    axis = [ir.AttrInt64("axis", 0)] if scale.ndim else []
    node = ir.Node("", "DequantizeLinear", inputs, attributes=axis, name=f"{name}_dequantize")
    made = node.outputs[0]
    made.name = f"{name}_dequantized"
    made.type, made.shape = ir.TensorType(ir.DataType.from_numpy(scale.dtype)), ir.Shape(integers.shape)
    node.metadata_props.update(reader.metadata_props)
    model.graph.insert_before(reader, node)
    return made


def take_place(model: "ir.Model", node: "ir.Node", value: "ir.Value") -> None:
    """Give a value to all that reads what a node gives, under its name and of its shape, and remove the node.

    Args:
        model: Has the node.
        node: It has one output.
        value: Of the same numbers.
    """
    from onnx_ir.convenience import replace_all_uses_with

    result = node.outputs[0]
    value.shape = result.shape
    value.name, result.name = result.name, value.name
    replace_all_uses_with(result, value, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
