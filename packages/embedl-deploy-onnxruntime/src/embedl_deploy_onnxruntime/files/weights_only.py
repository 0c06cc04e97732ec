"""Quantized weights of products in float as inputs × outputs, as the runtime wants them for MatMulNBits.

    x · Transpose(DequantizeLinear(w, s, axis=1))    becomes    x · DequantizeLinear(wᵀ, sᵀ, axis=0)

The kernel reads the integers. Otherwise a weight in blocks, and any weight of Gemm, is dequantized in every call. So is
one that two products read, or whose scales are those of another: each product has its own, even of one layer.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy_onnxruntime.files.making import initializer, node_like
from embedl_deploy_onnxruntime.files.stored_weights import StoredWeight, product_of, stored_weight

if TYPE_CHECKING:
    import onnx_ir as ir


def turn_weights(model: "ir.Model") -> None:
    """Turn the quantized weights of products whose other operand is in float, and store them as integers.

    Args:
        model: Changed in place.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        product = product_of(node)
        weight = None if product is None or _is_quantized(product.left) else stored_weight(product)
        if product is None or weight is None:
            continue
        weight = _by_output(weight)
        settings = {"axis": 0, "block_size": weight.block} if weight.block else {"axis": 1}
        dtype = product.weight.dtype or ir.DataType.FLOAT
        value = node_like(model, node, "DequantizeLinear", _stored(model, weight), dtype, **settings)
        value.shape = ir.Shape(weight.integers.shape)
        node.replace_input_with(1, value)
        node.attributes.pop("transB", None)


def _is_quantized(value: "ir.Value") -> bool:
    maker = value.producer()
    return maker is not None and maker.op_type == "DequantizeLinear"


def _by_output(weight: StoredWeight) -> StoredWeight:
    """With a scale for each output where there are fewer, or blocks as long as the rows."""
    count, outputs = weight.integers.shape
    if weight.block and weight.block < count:
        return weight
    return replace(weight, scale=np.broadcast_to(weight.scale, (1, outputs)).reshape(-1), block=0)


def _stored(model: "ir.Model", weight: StoredWeight) -> "list[ir.Value | None]":
    """What DequantizeLinear reads."""
    zeros = np.zeros(weight.scale.shape, weight.integers.dtype)
    return [
        initializer(model, f"{weight.name}_turned", np.ascontiguousarray(weight.integers), weight.dtype),
        initializer(model, f"{weight.name}_turned_scale", np.ascontiguousarray(weight.scale)),
        initializer(model, f"{weight.name}_turned_zero_point", zeros, weight.dtype),
    ]
