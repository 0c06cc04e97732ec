"""Batch norms and average pools between quantizers as convolutions of one filter a channel.

    γ·(x − μ)/√(σ² + ε) + β = w·x + b,   w = γ/√(σ² + ε),   b = β − w·μ

is a convolution of 1×1; an average over windows of k values, one whose values are all 1/k. The runtime has no integer
kernel for a batch norm, and the one for an average pool is many times slower than float. The weights are exact in INT8:
each channel has one value, and a scale of its own.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy_onnxruntime.files.making import dequantized, initializer
from embedl_deploy_onnxruntime.files.small_weights import LARGEST_BIAS

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST_WEIGHT = 127
#: What may stand before the quantizer of a result, because the quantizer's range does the same.
_CUT_OFF = ("Clip", "Relu")
_LEAST_RANK = 3


def convolve_by_channel(model: "ir.Model") -> None:
    """Write batch norms and average pools as convolutions, where what they read and give is quantized.

    Args:
        model: Changed in place.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        if node.op_type not in ("BatchNormalization", "AveragePool") or not _is_quantized_next(node):
            continue
        value = node.inputs[0]
        scale = _scale_of(value)
        if value is None or scale is None or value.shape is None or len(value.shape) < _LEAST_RANK:
            continue
        if value.dtype is not ir.DataType.FLOAT:
            continue  # no integer kernel reads others
        channels = value.shape[1]
        if not isinstance(channels, int):
            continue
        if node.op_type == "AveragePool":
            _convolve_windows(model, node, channels)
        else:
            _convolve_values(model, node, scale, len(value.shape))


def _convolve_windows(model: "ir.Model", node: "ir.Node", channels: int) -> None:
    """An average pool that divides all windows by their size."""
    import onnx_ir as ir

    kernel = tuple(node.attributes["kernel_shape"].as_ints())
    pads = node.attributes["pads"].as_ints() if "pads" in node.attributes else (0,) * (2 * len(kernel))
    padded = node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    uneven = any(pads) and not _is_set(node, "count_include_pad")
    if padded or uneven or _is_set(node, "ceil_mode"):
        return
    weight = np.full((channels, 1, *kernel), _LARGEST_WEIGHT, np.int8)
    scales = np.full(channels, 1 / (math.prod(kernel) * _LARGEST_WEIGHT), np.float32)
    attributes = [ir.AttrInt64("group", channels), ir.AttrInt64s("kernel_shape", kernel), ir.AttrInt64s("pads", pads)]
    attributes += [node.attributes[name] for name in ("strides", "dilations") if name in node.attributes]
    _replace(model, node, [dequantized(model, node, f"{node.name}_weight", weight, scales)], attributes)


def _convolve_values(model: "ir.Model", node: "ir.Node", scale: float, rank: int) -> None:
    """A batch norm by running statistics."""
    import onnx_ir as ir

    tensors = [None if value is None else value.const_value for value in node.inputs[1:5]]
    if any(tensor is None for tensor in tensors) or _is_set(node, "training_mode"):
        return
    gamma, beta, mean, variance = (tensor.numpy().astype(np.float64) for tensor in tensors if tensor is not None)
    factor = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    shift = beta - factor * mean
    # A weight so small that INT32 cannot hold the bias in its scale counts for nothing beside the bias.
    scales = np.maximum(np.abs(factor) / _LARGEST_WEIGHT, np.abs(shift) / (scale * LARGEST_BIAS))
    scales[scales == 0] = 1
    stored = np.rint(factor / scales).astype(np.int8).reshape(-1, *(1,) * (rank - 1))
    weight = dequantized(model, node, f"{node.name}_weight", stored, scales.astype(np.float32))
    bias = initializer(model, f"{node.name}_bias", shift.astype(np.float32))
    channels = len(factor)
    kernel = (1,) * (rank - 2)
    attributes = [ir.AttrInt64("group", channels), ir.AttrInt64s("kernel_shape", kernel)]
    _replace(model, node, [weight, bias], attributes)


def _replace(model: "ir.Model", node: "ir.Node", constants: "list[ir.Value]", attributes: "list[ir.Attr]") -> None:
    import onnx_ir as ir

    conv = ir.Node("", "Conv", [node.inputs[0], *constants], attributes=attributes, name=node.name)
    old, new = node.outputs[0], conv.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    conv.metadata_props.update(node.metadata_props)
    model.graph.insert_before(node, conv)
    old.replace_all_uses_with(new)
    model.graph.remove(node, safe=True)


def _is_set(node: "ir.Node", flag: str) -> bool:
    return flag in node.attributes and node.attributes[flag].as_int() != 0


def _is_quantized_next(node: "ir.Node") -> bool:
    readers = [use.node for use in node.outputs[0].uses()]
    if len(readers) == 1 and readers[0].op_type in _CUT_OFF and not node.outputs[0].is_graph_output():
        node = readers[0]
        readers = [use.node for use in node.outputs[0].uses()]
    is_alone = len(readers) == 1 and not node.outputs[0].is_graph_output()
    return is_alone and readers[0].op_type == "QuantizeLinear"


def _scale_of(value: "ir.Value | None") -> float | None:
    """The constant scale with which a value is dequantized."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[1] is None:
        return None
    scale = node.inputs[1].const_value
    return float(scale.numpy().reshape(())) if scale is not None and scale.size == 1 else None
