"""Translates activations in blocks to operators of ONNX: there is none that finds the scales of blocks.

    NVFP4   s = Cast(Clip(max|x| / 6 / t), E4M3)               scale = DequantizeLinear(s, t)
    MXFP8   s = Cast(max|x|, E8M0, round_mode="down") · 2⁻⁸    scale = s, in float32

    q = QuantizeLinear(x, scale, block_size)   →   DequantizeLinear(q, scale, block_size)

Operator set 23 has E2M1, and 24 the rounding of E8M0. That pair of QuantizeLinear and DequantizeLinear, whose scale is
computed from what is quantized, is what backends look for that have an operator for all of it.
"""

import math
from typing import Any, Optional

import numpy as np
import onnx_ir as ir
from onnxscript import evaluator
from onnxscript.function_libs.torch_lib.registration import torch_op
from onnxscript.onnx_types import TensorType

from embedl_deploy.numerics.formats import Precision
from embedl_deploy.quantize.grid.onnx_operators import require_opset

# What onnxscript reads of the annotations: tensors are inputs, the rest are attributes.
_Optional = Optional[TensorType]  # noqa: UP045 - as above


@torch_op("embedl_deploy::fake_quantize_call", trace_only=True)
def _fake_quantize_call(x: TensorType, tensor_scale: _Optional, block: int, precision: str) -> TensorType:
    recorder: Any = evaluator.default()
    op, row, given = recorder.opset, Precision(precision), x.dtype
    require_opset(row, blocks=True, half=None)
    in_float32 = given in (None, ir.DataType.FLOAT)
    wide = x if in_float32 else op.Cast(x, to=int(ir.DataType.FLOAT))
    scale = _scales(op, _largest(op, wide, block), tensor_scale, row)
    settings = {"axis": -1, "block_size": block}
    kind = int(ir.DataType[row.format.onnx_type])
    values = op.DequantizeLinear(op.QuantizeLinear(wide, scale, None, output_dtype=kind, **settings), scale, **settings)
    return values if in_float32 else op.Cast(values, to=int(given))  # type: ignore[no-any-return]  # made untyped


def _largest(op: Any, x: Any, block: int) -> Any:
    """The largest magnitude of each block of the last axis."""
    shape = op.Concat(op.Shape(x, end=-1), _integers(op, -1, block), axis=0)
    return op.ReduceMax(op.Abs(op.Reshape(x, shape)), _integers(op, -1), keepdims=0)


def _scales(op: Any, largest: Any, tensor_scale: Any, precision: Precision) -> Any:
    """What blocks with these largest magnitudes are divided by."""
    none, one = op.Equal(largest, _number(op, 0.0)), _number(op, 1.0)
    if tensor_scale is not None:
        ratio = op.Div(op.Div(largest, _number(op, precision.high)), tensor_scale)
        clipped = op.Clip(ratio, _number(op, Precision.FP8.smallest), _number(op, Precision.FP8.high))
        numbers = op.Cast(op.Where(none, one, clipped), to=int(ir.DataType.FLOAT8E4M3FN))
        return op.DequantizeLinear(numbers, tensor_scale)
    exponent = math.frexp(precision.high)[1] - 1  # of the largest number
    # The least scale is the least number of E8M0, 2⁻¹²⁷; values that ask for less are rounded by it.
    least = _number(op, 2.0 ** (exponent - 127))
    power = op.Cast(op.Max(largest, least), to=int(ir.DataType.FLOAT8E8M0), round_mode="down")
    scale = op.Mul(op.Cast(power, to=int(ir.DataType.FLOAT)), _number(op, 2.0**-exponent))
    return op.Where(none, one, scale)


def _number(op: Any, value: float) -> Any:
    return op.Constant(value=ir.tensor(np.array(value, np.float32)))


def _integers(op: Any, *values: int) -> Any:
    return op.Constant(value=ir.tensor(np.array(values, np.int64)))
