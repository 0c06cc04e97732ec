"""Biases of quantized convolutions and products in INT32, as the runtime's integer kernels add them.

    y = s_x·s_w·(Σ (q_x − z_x)·q_w + q_b),   q_b = round(b / (s_x·s_w))

The runtime quantizes the biases of convolutions by itself, where it quantizes their outputs. A product whose output is
wanted in float, as before a sum or an activation of a transformer, runs in integers only if its bias is in INT32.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedl_deploy.artifact import block_of
from embedl_deploy_onnxruntime.files.computed import constant_of
from embedl_deploy_onnxruntime.files.making import dequantized
from embedl_deploy_onnxruntime.files.small_weights import LARGEST_BIAS, make_room_for_bias

if TYPE_CHECKING:
    import onnx_ir as ir

#: With room for what rounding a scale adds.
_LARGEST = 2 * LARGEST_BIAS
#: Where the bias is among an operator's inputs.
_WITH_BIAS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}


def quantize_biases(model: "ir.Model") -> None:
    """Store biases in INT32, with DequantizeLinear, where an operator's input and weight are quantized.

    Where INT32 cannot hold a bias in steps of input × weight, the weight's scale is made larger.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        if node.op_type in _WITH_BIAS and len(node.inputs) > _WITH_BIAS[node.op_type]:
            _quantize(model, node, node, _WITH_BIAS[node.op_type])
        elif node.op_type == "MatMul" and len(node.outputs[0].uses()) == 1:
            use = next(iter(node.outputs[0].uses()))
            if use.node.op_type == "Add":
                _quantize(model, node, use.node, 1 - use.idx)


def _quantize(model: "ir.Model", product: "ir.Node", adder: "ir.Node", position: int) -> None:
    """Quantize the bias that ``adder`` reads at ``position``, by the scales of what ``product`` multiplies."""
    import onnx_ir as ir

    bias = adder.inputs[position]
    scales = [_scale_of(product.inputs[0]), _scale_of(product.inputs[1], of_weight=True)]
    if bias is None or bias.dtype is not ir.DataType.FLOAT:
        return
    if scales[0] is None or scales[1] is None or scales[0].ndim != 0:
        return
    values = constant_of(model, bias)
    if values is None:
        return
    if values.ndim != 1 or scales[1].shape not in ((), values.shape) or not np.isfinite(values).all():
        return
    larger = make_room_for_bias(model, product, values, float(scales[0]))
    of_weight = scales[1] if larger is None else larger
    scale = (scales[0].astype(np.float32) * of_weight.astype(np.float32)).astype(np.float32)
    if not np.all(scale > 0):
        return
    integers = np.rint(values.astype(np.float64) / scale)
    if np.abs(integers).max(initial=0) > _LARGEST:
        return
    name = bias.name or adder.name or product.op_type
    adder.replace_input_with(position, dequantized(model, adder, name, integers.astype(np.int32), scale))


def _scale_of(value: "ir.Value | None", *, of_weight: bool = False) -> npt.NDArray[Any] | None:
    """The constant scale of a value that DequantizeLinear gives; of a weight, one for each output at most."""
    node = None if value is None else value.producer()
    if of_weight and node is not None and node.op_type == "Transpose":
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    if node is None or node.op_type != "DequantizeLinear" or block_of(node):
        return None
    scale = node.inputs[1]
    if scale is None or scale.const_value is None:
        return None
    stored = node.inputs[0]
    if of_weight and (stored is None or not _is_constant(stored)):
        return None
    return scale.const_value.numpy()


def _is_constant(value: "ir.Value") -> bool:
    """Whether a weight is stored, in integers or to be quantized when the file is loaded."""
    if value.const_value is not None:
        return True
    node = value.producer()
    return node is not None and node.op_type == "QuantizeLinear" and _has_value(node.inputs[0])


def _has_value(value: "ir.Value | None") -> bool:
    if value is None:
        return False
    node = value.producer()
    if node is not None and node.op_type == "Transpose":  # of a weight, which the runtime computes beforehand
        return _has_value(node.inputs[0])
    return value.const_value is not None
