"""Translates the quantization operators to QuantizeLinear, DynamicQuantizeLinear and DequantizeLinear of ONNX.

They are registered when this file is imported, with the library of translations that ``torch.onnx.export`` reads. So a
quantized model is exported in the same way by whoever exports it.

The zero point is always written, although it is zero: its type is the type of the stored numbers, which would be uint8
without it.
"""

from collections.abc import Iterator
from typing import Any, NoReturn, Optional

import numpy as np
import onnx_ir as ir
from onnxscript import evaluator
from onnxscript.function_libs.torch_lib.registration import torch_op
from onnxscript.onnx_types import TensorType
from torch.onnx import register_custom_op_symbolic  # type: ignore[attr-defined]  # deprecated, as its exporter

from embedl_deploy.errors import ExportError
from embedl_deploy.numerics.formats import Precision

#: First version of the operator set with scales in blocks.
_OPSET_OF_BLOCKS = 21
#: Scales in float16 and bfloat16 since 19.
_OPSET_OF_HALF = 19


def needed_opsets(precision: Precision, *, blocks: bool, half: str | None) -> Iterator[tuple[int, str]]:
    """The oldest operator sets that can say how a tensor is quantized, and what asks for each.

    Args:
        precision: The number format.
        blocks: Whether scales are one for each block.
        half: The type of the scales, in words, where it is a 16-bit one.
    """
    yield precision.format.opset, precision.name
    if blocks:
        yield _OPSET_OF_BLOCKS, "scales in blocks"
    if half is not None:
        yield _OPSET_OF_HALF, f"scales in {half}"


# What onnxscript reads of the annotations: tensors are inputs, the rest are attributes.
_Optional = Optional[TensorType]  # noqa: UP045 - as above


@torch_op("embedl_deploy::fake_quantize", trace_only=True)
def _fake_quantize(
    x: TensorType, scale: TensorType, zero_point: _Optional, axis: int, block: int, precision: str
) -> TensorType:
    write = _Writer(scale, zero_point, axis, block, Precision(precision))
    return write.dequantized(write.quantized(x))


@torch_op("embedl_deploy::dequantize", trace_only=True)
def _dequantize(
    values: TensorType, scale: TensorType, zero_point: _Optional, axis: int, block: int, precision: str
) -> TensorType:
    write = _Writer(scale, zero_point, axis, block, Precision(precision))
    return write.dequantized(write.stored(values))


@torch_op("embedl_deploy::fake_quantize_dynamic", trace_only=True)
def _fake_quantize_dynamic(x: TensorType) -> TensorType:
    recorder: Any = evaluator.default()
    op, given = recorder.opset, x.dtype
    in_float32 = given in (None, ir.DataType.FLOAT)
    wide = x if in_float32 else op.Cast(x, to=int(ir.DataType.FLOAT))  # the only type that the operator takes
    values = op.DequantizeLinear(*op.DynamicQuantizeLinear(wide))
    return values if in_float32 else op.Cast(values, to=int(given))  # type: ignore[no-any-return]  # made untyped


class _Writer:
    """Writes operators on one grid into the graph that is being translated."""

    def __init__(self, scale: Any, zero_point: Any, axis: int, block: int, precision: Precision) -> None:
        # The version of the operator set that the exporter writes for: a translation is not told in another way.
        recorder: Any = evaluator.default()
        self.op = recorder.opset
        half = scale.dtype.name.lower() if scale.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else None
        for opset, what in needed_opsets(precision, blocks=block > 0, half=half):
            if self.op.version < opset:
                raise ExportError(
                    f"The operator set to write for is {self.op.version}; {what} needs {opset} or more. Call "
                    f"torch.onnx.export(..., opset_version={opset}), or embedl_deploy.export_onnx, which chooses it."
                )
        self.type = ir.DataType[precision.format.onnx_type]
        self.is_packed = precision.bits < 8 * precision.format.storage.itemsize
        self.scale = scale
        if zero_point is None:
            zeros = np.zeros(tuple(int(size) for size in scale.shape), dtype=self.type.numpy())
            zero_point = self.op.Constant(value=ir.tensor(zeros, dtype=self.type))
        self.zero_point = zero_point
        self.settings = {"axis": axis, "block_size": block} if block else {"axis": axis}

    def quantized(self, x: TensorType) -> TensorType:
        q: TensorType = self.op.QuantizeLinear(x, self.scale, self.zero_point, **self.settings)
        return q

    def dequantized(self, values: TensorType) -> TensorType:
        x: TensorType = self.op.DequantizeLinear(values, self.scale, self.zero_point, **self.settings)
        return x

    def stored(self, values: Any) -> Any:
        """Numbers in their own type: those of less than a byte, for which torch has none, arrive in a wider one."""
        if not self.is_packed:
            return values
        if values.producer() is not None:
            return self.op.Cast(values, to=int(self.type))
        # The model's own tensor. The exporter tells its numbers when all is translated, so they are asked for later.
        packed = ir.LazyTensor(
            lambda: ir.tensor(values.const_value.numpy().astype(self.type.numpy()), dtype=self.type),
            dtype=self.type,
            shape=ir.Shape([int(size) for size in values.shape]),
        )
        return self.op.Constant(value=packed)


def _refuse(*_given: Any) -> NoReturn:
    raise ExportError(
        "torch.onnx.export(dynamo=False) has no operators for quantized models: that exporter, which is deprecated, "
        "knows neither FP8 nor INT4 nor scales in blocks. Leave dynamo=False out, or call embedl_deploy.export_onnx."
    )


for _name in ("fake_quantize", "fake_quantize_dynamic", "dequantize"):
    register_custom_op_symbolic(f"embedl_deploy::{_name}", _refuse, 7)
