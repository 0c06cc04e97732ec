"""Weights that are so small beside their bias that INT32 cannot hold the bias in steps of input × weight.

    y = s_x·s_w·(Σ (q_x − z_x)·q_w + q_b),   q_b = round(b / (s_x·s_w))

overflows where the weights of a channel are nearly zero, as batch norm leaves them in channels that training has given
up: the runtime then computes other numbers, and does not say so. With a larger s_w, and q_w rounded again,

    s_w ≥ |b| / (s_x·2²⁹)

it holds the bias, and the sum to which it is added. What this rounds off the weights is small beside the bias.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedl_deploy_onnxruntime.files.computed import constant_of
from embedl_deploy_onnxruntime.files.making import initializer

if TYPE_CHECKING:
    import onnx_ir as ir

#: The largest number that a bias may be in INT32, with room for the sum to which it is added.
LARGEST_BIAS = 2**29


def make_room_for_bias(
    model: "ir.Model", product: "ir.Node", bias: npt.NDArray[Any], of_input: float
) -> npt.NDArray[Any] | None:
    """Give a convolution or product a weight with larger scales, where its bias does not fit beside the present ones.

    Other nodes that read the weight keep theirs.

    Args:
        model: Changed in place.
        product: The convolution or product, whose weight is dequantized, perhaps behind a Transpose.
        bias: (channels,).
        of_input: The scale of what is multiplied by the weight.

    Returns:
        The new scales, of the shape of those before; ``None`` if nothing is changed.
    """
    import onnx_ir as ir

    found = _dequantizer(product.inputs[1])
    if found is None:
        return None
    node, order = found
    stored, scale = node.inputs[0], constant_of(model, node.inputs[1])
    integers = constant_of(model, stored)
    if stored is None or integers is None or scale is None or scale.shape not in ((), bias.shape):
        return None
    needed = np.abs(bias.astype(np.float64)) / (of_input * LARGEST_BIAS)
    larger: npt.NDArray[Any] = np.maximum(scale, needed if scale.ndim else needed.max(initial=0)).astype(scale.dtype)
    if np.all(larger == scale) or not np.isfinite(larger).all():
        return None
    axis = node.attributes.get_int("axis", 1) % integers.ndim
    across = tuple(-1 if each == axis else 1 for each in range(integers.ndim)) if scale.ndim else ()
    zero_point = constant_of(model, node.inputs[2]) if len(node.inputs) > 2 else None
    zero = 0.0 if zero_point is None else zero_point.astype(np.float64).reshape(across)
    ratio = (scale.astype(np.float64) / larger).reshape(across)
    rounded = np.rint((integers.astype(np.float64) - zero) * ratio + zero).astype(integers.dtype)
    if order is not None:
        rounded, axis = np.ascontiguousarray(rounded.transpose(order)), order.index(axis)
    name = f"{product.name}_weight_beside_bias"
    read = [initializer(model, name, rounded, stored.dtype), initializer(model, f"{name}_scale", larger)]
    made = ir.Node(
        "",
        "DequantizeLinear",
        [*read, *node.inputs[2:]],
        attributes=[ir.AttrInt64("axis", axis)],
        name=f"{name}_dequantize",
    )
    result = made.outputs[0]
    result.name, result.shape = f"{name}_dequantized", ir.Shape(rounded.shape)
    result.type = ir.TensorType(ir.DataType.from_numpy(larger.dtype))
    made.metadata_props.update(product.metadata_props)
    model.graph.insert_before(product, made)
    product.replace_input_with(1, result)
    return larger


def _dequantizer(weight: "ir.Value | None") -> "tuple[ir.Node, tuple[int, ...] | None] | None":
    """The DequantizeLinear of a weight, and the order of axes of a Transpose behind it, if there is one."""
    node, order = None if weight is None else weight.producer(), None
    if node is not None and node.op_type == "Transpose":
        order = tuple(node.attributes.get_ints("perm", (1, 0)))
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return None if node is None or node.op_type != "DequantizeLinear" else (node, order)
