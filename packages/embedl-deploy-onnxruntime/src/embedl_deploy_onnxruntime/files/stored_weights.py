"""The quantized weight of a matrix product, as integers of inputs × outputs, whatever way the file has it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredWeight:
    """A weight of K inputs and N outputs: w = scale · integers. It has no zero point.

    Attributes:
        integers: (K, N).
        scale: A scalar, (N,), or (⌈K / block⌉, N).
        block: Inputs that share a scale; 0 for no blocks.
        dtype: The type that the file has for the integers.
        name: Of the weight, for what is made of it.
    """

    integers: Array
    scale: Array
    block: int
    dtype: "ir.DataType"
    name: str


@dataclass(frozen=True)
class Product:
    """A matrix product: MatMul, or Gemm that is one with a bias.

    Attributes:
        node: The product.
        left: What is multiplied by the weight.
        weight: The weight's value.
        turned: Whether the weight is outputs × inputs.
        bias: Added by the node itself, if it is.
    """

    node: "ir.Node"
    left: "ir.Value"
    weight: "ir.Value"
    turned: bool = False
    bias: "ir.Value | None" = None


def product_of(node: "ir.Node") -> Product | None:
    """A node as a product with what may be a weight; ``None`` for other nodes and other forms of Gemm."""
    if node.op_type not in ("MatMul", "Gemm") or node.domain not in ("", "ai.onnx"):
        return None
    left, weight = node.inputs[:2]
    if left is None or weight is None:
        return None
    if node.op_type == "MatMul":
        return Product(node, left, weight)
    factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    if factors != [1.0, 1.0] or node.attributes.get_int("transA", 0) != 0:
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return Product(node, left, weight, node.attributes.get_int("transB", 0) == 1, bias)


def stored_weight(product: Product) -> StoredWeight | None:
    """The weight that a product multiplies by.

    Returns:
        ``None`` if that is not quantized, has zero points, or scales along something else than outputs or blocks of
        inputs.
    """
    value, turned = product.weight, product.turned
    node = value.producer()
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        if list(node.attributes.get_ints("perm", (1, 0))) != [1, 0]:
            return None
        turned, node = not turned, node.inputs[0].producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    scale, block = constant(node.inputs[1]), node.attributes.get_int("block_size", 0)
    axis = node.attributes.get_int("axis", 1) % 2
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    integers = _integers(node, block, axis)
    if scale is None or integers is None or integers.ndim != 2:
        return None
    if is_shifted(zero_point):
        return None
    inputs_at = 1 if turned else 0
    if scale.ndim and axis != (inputs_at if block else 1 - inputs_at):
        return None
    name, dtype = node.inputs[0].name or node.name or "weight", node.inputs[0].dtype
    assert dtype is not None  # of a constant, or of what QuantizeLinear gives
    if turned:
        integers, scale = integers.T, (scale.T if block else scale)
    return StoredWeight(integers, scale.reshape(()) if scale.size == 1 and not block else scale, block, dtype, name)


def is_shifted(zero_point: "ir.Value | None") -> bool:
    """Whether a zero point is given, and not known to be 0."""
    zeros = constant(zero_point)
    return zero_point is not None and (zeros is None or bool(zeros.astype(np.int32).any()))


def constant(value: "ir.Value | None") -> Array | None:
    """The numbers of a stored value; ``None`` for any other."""
    from onnx_ir.convenience import get_const_tensor

    tensor = None if value is None else get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _integers(dequantize: "ir.Node", block: int, axis: int) -> Array | None:
    """What a DequantizeLinear reads, as it is stored or as QuantizeLinear makes it of a stored weight."""
    value = dequantize.inputs[0]
    stored = constant(value)
    if stored is not None or value is None:
        return stored
    node = value.producer()
    if node is None or node.op_type != "QuantizeLinear" or list(node.inputs[1:]) != list(dequantize.inputs[1:]):
        return None
    weight, scale, dtype = constant(node.inputs[0]), constant(node.inputs[1]), value.dtype
    if weight is None or weight.ndim != 2 or scale is None or dtype is None or weight.dtype != np.float32:
        return None
    spread = scale
    if block:
        spread = np.repeat(scale, block, axis=axis).take(range(weight.shape[axis]), axis=axis)
    elif scale.ndim:
        spread = scale.reshape((-1, 1) if axis == 0 else (1, -1))
    low, high = dtype.min, dtype.max
    return np.clip(np.rint(weight / spread), float(low), float(high)).astype(dtype.numpy())
