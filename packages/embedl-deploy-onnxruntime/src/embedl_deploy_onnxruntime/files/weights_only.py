"""Quantized weights of products in float as inputs × outputs, as the runtime wants them for MatMulNBits.

    x · Transpose(DequantizeLinear(w, s, axis=1))    becomes    x · DequantizeLinear(wᵀ, sᵀ, axis=0)

The kernel reads the integers. Otherwise a weight in blocks, and any weight of Gemm, is dequantized in every call.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy_onnxruntime.files.making import initializer, node_like
from embedl_deploy_onnxruntime.files.stored_weights import Product, StoredWeight, product_of, stored_weight

if TYPE_CHECKING:
    import onnx_ir as ir


def turn_weights(model: "ir.Model") -> None:
    """Turn the quantized weights of products whose other operand is in float, and store them as integers.

    Args:
        model: Changed in place.
    """
    turned: dict[str, ir.Value] = {}
    for node in list(model.graph):
        product = product_of(node)
        if product is None or _is_quantized(product.left):
            continue
        weight = stored_weight(product)
        if weight is None:
            continue
        if weight.name not in turned:  # a layer that is called twice has one
            turned[weight.name] = _dequantized(model, product, weight)
        node.replace_input_with(1, turned[weight.name])
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


def _dequantized(model: "ir.Model", product: Product, weight: StoredWeight) -> "ir.Value":
    import onnx_ir as ir

    weight = _by_output(weight)
    zeros = np.zeros(weight.scale.shape, weight.integers.dtype)
    inputs: list[ir.Value | None] = [
        initializer(model, f"{weight.name}_turned", np.ascontiguousarray(weight.integers), weight.dtype),
        initializer(model, f"{weight.name}_turned_scale", np.ascontiguousarray(weight.scale)),
        initializer(model, f"{weight.name}_turned_zero_point", zeros, weight.dtype),
    ]
    settings = {"axis": 0, "block_size": weight.block} if weight.block else {"axis": 1}
    dtype = product.weight.dtype or ir.DataType.FLOAT
    value = node_like(model, product.node, "DequantizeLinear", inputs, dtype, **settings)
    value.shape = ir.Shape(weight.integers.shape)
    return value
