"""Translates numbers whose scales are numbers of a format to DequantizeLinear of ONNX.

    MX formats     values, scales in E8M0              →  DequantizeLinear in blocks, float32, operator set 24
    NVFP4          scales in E4M3, scale of the tensor →  DequantizeLinear
                   values, what it gives               →  DequantizeLinear in blocks, float32, operator set 23

A ``Cast`` to the type of the model follows where that is not float32. There are no zero points: the numbers are stored,
so that their type is in the file.
"""

from typing import Any, Optional

import onnx_ir as ir
from onnxscript import evaluator
from onnxscript.function_libs.torch_lib.registration import torch_op
from onnxscript.onnx_types import TensorType

from embedl_deploy.numerics.formats import Precision
from embedl_deploy.quantize.grid.onnx_operators import constant_of, packed, require_opset

# What onnxscript reads of the annotations: tensors are inputs, the rest are attributes.
_Optional = Optional[TensorType]  # noqa: UP045 - as above

_E8M0 = ir.DataType.FLOAT8E8M0


@torch_op("embedl_deploy::dequantize_blocks", trace_only=True)
def _dequantize_blocks(
    values: TensorType, scale: TensorType, tensor_scale: _Optional, block: int, precision: str, dtype: int
) -> TensorType:
    recorder: Any = evaluator.default()
    op, row = recorder.opset, Precision(precision)
    require_opset(row, blocks=True, half=None)
    settings = {"axis": -1, "block_size": block}
    if tensor_scale is None:
        scale = constant_of(scale, _E8M0, lambda exponents: exponents.view(_E8M0.numpy()))
        settings["output_dtype"] = int(ir.DataType.FLOAT)  # not that of the scales, as it would be
    else:
        scale = op.DequantizeLinear(scale, tensor_scale)
    found = op.DequantizeLinear(packed(values, row), scale, **settings)
    in_float32 = dtype in (-1, int(ir.DataType.FLOAT))
    return found if in_float32 else op.Cast(found, to=dtype)  # type: ignore[no-any-return]  # made untyped
