"""Constant factors of quantized values, as part of the scale with which they are dequantized.

    c · s·(q − z) = (c·s)·(q − z)

so that a quantizer with a factor behind it, as in Hardswish, is still next to the operator that reads it.
"""

from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy_onnxruntime.files.making import initializer

if TYPE_CHECKING:
    import onnx_ir as ir


def fold_factors(model: "ir.Model") -> None:
    """Make factors and divisors behind DequantizeLinear part of its scale, where nothing else reads it.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        if node.op_type not in ("Mul", "Div"):
            continue
        for position, value in enumerate(node.inputs):
            other = node.inputs[1 - position]
            if node.op_type == "Div" and position == 1:
                continue
            before = None if value is None else value.producer()
            factor = None if other is None or other.const_value is None else other.const_value
            if before is None or before.op_type != "DequantizeLinear" or factor is None or factor.size != 1:
                continue
            if value is None or (factor.shape and (value.shape is None or len(factor.shape) > len(value.shape))):
                continue  # the product has more dimensions
            number = float(factor.numpy().reshape(()))
            if node.op_type == "Div":
                number = 1 / number if number else 0.0
            if _fold(model, before, node, number):
                break


def _fold(model: "ir.Model", before: "ir.Node", node: "ir.Node", number: float) -> bool:
    scale, value = before.inputs[1], before.outputs[0]
    if scale is None or scale.const_value is None or number <= 0 or not np.isfinite(number):
        return False
    if len(list(value.uses())) != 1 or value in model.graph.outputs or node.outputs[0] in model.graph.outputs:
        return False
    values = scale.const_value.numpy()
    scaled = (values.astype(np.float64) * number).astype(values.dtype)
    before.replace_input_with(1, initializer(model, f"{node.name}_scale", scaled))
    node.outputs[0].replace_all_uses_with(value)
    model.graph.remove(node, safe=True)
    return True
