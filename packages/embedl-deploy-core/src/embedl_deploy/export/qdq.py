"""The quantization operators as ONNX has them: QuantizeLinear and DequantizeLinear.

The zero point is always written, although it is zero: its type is the type of the stored numbers, which would be uint8
without it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from embedl_deploy.quantize.formats import Precision

#: First version of the operator set with everything that a format needs: FP8 since 19, 16 and 4 bits and blocks
#: since 21.
OPSET_OF_PRECISION = {Precision.INT8: 18, Precision.FP8: 19, Precision.INT16: 21, Precision.INT4: 21}
OPSET_OF_BLOCKS = 21
#: Scales in float16 and bfloat16 since 19.
OPSET_OF_HALF = 19


def translations(opset: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """For ``torch.onnx.export(custom_translation_table=...)``, written for a version of the operator set."""
    import onnx_ir as ir
    import onnxscript

    op: Any = getattr(onnxscript, f"opset{opset}")

    types = {
        Precision.INT8: ir.DataType.INT8,
        Precision.INT16: ir.DataType.INT16,
        Precision.INT4: ir.DataType.INT4,
        Precision.FP8: ir.DataType.FLOAT8E4M3FN,
    }

    def zeros(scale: Any, zero_point: Any, precision: str) -> Any:
        if zero_point is not None:
            return zero_point
        kind = types[Precision(precision)]
        shape = tuple(int(size) for size in scale.shape)
        return op.Constant(value=ir.tensor(np.zeros(shape, dtype=kind.numpy()), dtype=kind))

    def settings(axis: int, block: int) -> dict[str, int]:
        return {"axis": axis} if block == 0 else {"axis": axis, "block_size": block}

    def fake_quantize(x: Any, scale: Any, zero_point: Any, axis: int, block: int, precision: str) -> Any:
        zero = zeros(scale, zero_point, precision)
        q = op.QuantizeLinear(x, scale, zero, **settings(axis, block))
        return op.DequantizeLinear(q, scale, zero, **settings(axis, block))

    def dequantize(values: Any, scale: Any, zero_point: Any, axis: int, block: int, precision: str) -> Any:
        zero = zeros(scale, zero_point, precision)
        if Precision(precision) is Precision.INT4:
            values = op.Cast(values, to=int(types[Precision.INT4]))
        return op.DequantizeLinear(values, scale, zero, **settings(axis, block))

    return {
        torch.ops.embedl_deploy.fake_quantize.default: fake_quantize,
        torch.ops.embedl_deploy.dequantize.default: dequantize,
    }


def store_int4(model: Any) -> None:
    """Store four-bit weights as such, in an ``onnx_ir.Model``, in place.

    Torch has no type for them, so they arrive as eight bits and a Cast, which the exporter folds for small weights.
    """
    import onnx_ir as ir

    graph = model.graph
    for node in list(graph):
        stored = node.inputs[0] if node.op_type == "Cast" else None
        if stored is None or stored.const_value is None or node.attributes["to"].as_int() != ir.DataType.INT4:
            continue
        values = stored.const_value.numpy().astype(ir.DataType.INT4.numpy())
        tensor = ir.tensor(values, dtype=ir.DataType.INT4, name=f"{stored.name}.int4")
        weight = ir.Value(name=tensor.name, const_value=tensor)
        weight.type, weight.shape = ir.TensorType(ir.DataType.INT4), ir.Shape(values.shape)
        graph.register_initializer(weight)
        node.outputs[0].replace_all_uses_with(weight)
        graph.remove(node, safe=True)
        if not stored.uses() and stored.name in graph.initializers:
            del graph.initializers[stored.name]
