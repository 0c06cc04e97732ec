"""Constant summands of quantized values as quantized numbers, and means as the pool that has an integer kernel.

    DQ(x) + c → Q    becomes    DQ(x) + DQ(255, c/255) → Q

which the runtime runs as QLinearAdd: it has no kernel for an integer tensor and a number in float.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedl_deploy_onnxruntime.files.making import dequantized

if TYPE_CHECKING:
    import onnx_ir as ir

_MOST = 255
#: What may stand between a sum and its quantizer, because the quantizer's range does the same.
_CUT_OFF = ("Clip", "Relu")


def quantize_summands(model: "ir.Model") -> None:
    """Quantize positive numbers that are added to a quantized value whose sum is quantized.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        if node.op_type != "Add" or not _is_quantized_next(node):
            continue
        for position, value in enumerate(node.inputs):
            other = node.inputs[1 - position]
            producer = None if other is None else other.producer()
            if producer is None or producer.op_type != "DequantizeLinear" or value is None or value.const_value is None:
                continue
            number = value.const_value.numpy()
            if number.size == 1 and np.isfinite(number).all() and float(number.reshape(())) > 0:
                node.replace_input_with(position, _dequantized(model, node, number))


def pool_globally(model: "ir.Model") -> None:
    """Write means over height and width as GlobalAveragePool, with Squeeze where the dimensions are not kept.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        if node.op_type == "ReduceMean" and _is_over_the_map(node):
            _replace(model, node)


def _is_quantized_next(node: "ir.Node") -> bool:
    readers = [use.node for use in node.outputs[0].uses()]
    if len(readers) == 1 and readers[0].op_type in _CUT_OFF:
        readers = [use.node for use in readers[0].outputs[0].uses()]
    return len(readers) == 1 and readers[0].op_type == "QuantizeLinear"


def _dequantized(model: "ir.Model", reader: "ir.Node", number: npt.NDArray[Any]) -> "ir.Value":
    scale = np.asarray(number.reshape(()).astype(np.float64) / _MOST).astype(number.dtype)
    return dequantized(model, reader, f"{reader.name}_summand", np.full(number.shape, _MOST, np.uint8), scale)


def _is_over_the_map(node: "ir.Node") -> bool:
    import onnx_ir as ir

    value = node.inputs[0]
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if value is None or value.shape is None or len(value.shape) != 4 or axes is None or axes.const_value is None:
        return False
    if value.dtype is ir.DataType.DOUBLE:
        return False  # the pool has no kernel for it
    return {int(axis) % 4 for axis in axes.const_value.numpy().reshape(-1)} == {2, 3}


def _replace(model: "ir.Model", node: "ir.Node") -> None:
    import onnx_ir as ir

    pool = ir.Node("", "GlobalAveragePool", [node.inputs[0]], name=node.name)
    old, new = node.outputs[0], pool.outputs[0]
    pool.metadata_props.update(node.metadata_props)
    model.graph.insert_before(node, pool)
    if not node.attributes.get_int("keepdims", 1):
        new.name, new.type = f"{old.name}_kept", old.type
        new.shape = None if old.shape is None else ir.Shape([*old.shape, 1, 1])
        squeeze = ir.Node("", "Squeeze", [new, node.inputs[1]], name=f"{node.name}_squeeze")
        squeeze.metadata_props.update(node.metadata_props)
        model.graph.insert_before(node, squeeze)
        new = squeeze.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    if old in model.graph.outputs:
        model.graph.outputs[list(model.graph.outputs).index(old)] = new
    old.replace_all_uses_with(new)
    model.graph.remove(node, safe=True)
