"""Translates the quantization operators to QuantizeLinear, DynamicQuantizeLinear and DequantizeLinear of ONNX.

They are registered when this file is imported, with the library of translations that ``torch.onnx.export`` reads. So a
quantized model is exported in the same way by whoever exports it.

The zero point is always written, although it is zero: its type is the type of the stored numbers, which would be uint8
without it.
"""

from collections.abc import Callable, Iterator
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
    return write.dequantized(packed(values, write.precision))


@torch_op("embedl_deploy::fake_quantize_dynamic", trace_only=True)
def _fake_quantize_dynamic(x: TensorType) -> TensorType:
    recorder: Any = evaluator.default()
    op, given = recorder.opset, x.dtype
    in_float32 = given in (None, ir.DataType.FLOAT)
    wide = x if in_float32 else op.Cast(x, to=int(ir.DataType.FLOAT))  # the only type that the operator takes
    values = op.DequantizeLinear(*op.DynamicQuantizeLinear(wide))
    return values if in_float32 else op.Cast(values, to=int(given))  # type: ignore[no-any-return]  # made untyped


def require_opset(precision: Precision, *, blocks: bool, half: str | None) -> None:
    """Refuse an operator set that cannot say how a tensor is quantized; arguments as for :func:`needed_opsets`.

    Raises:
        ExportError: The one to write for, which a translation is not told in another way, is too old.
    """
    recorder: Any = evaluator.default()
    for opset, what in needed_opsets(precision, blocks=blocks, half=half):
        if recorder.opset.version < opset:
            raise ExportError(
                f"The operator set to write for is {recorder.opset.version}; {what} needs {opset} or more. Call "
                f"torch.onnx.export(..., opset_version={opset}), or embedl_deploy.export_onnx, which chooses it."
            )


def packed(values: Any, precision: Precision) -> Any:
    """Numbers in their own type: those of less than a byte, for which torch has none, arrive in a wider one."""
    kind = ir.DataType[precision.format.onnx_type]
    if precision.bits >= 8 * precision.format.storage.itemsize:
        return values
    if values.producer() is not None:
        recorder: Any = evaluator.default()
        return recorder.opset.Cast(values, to=int(kind))
    return constant_of(values, kind, lambda numbers: numbers.astype(kind.numpy()))


def constant_of(values: Any, kind: ir.DataType, change: Callable[[Any], Any]) -> Any:
    """The model's own tensor as a constant of another type.

    The exporter tells its numbers when all is translated, so they are asked for later.
    """
    recorder: Any = evaluator.default()
    return recorder.opset.Constant(value=ChangedNumbers(values, kind, change))


class ChangedNumbers(ir.LazyTensor):
    """Numbers that are made of a tensor of the model when they are asked for.

    Args:
        source: What holds that tensor in the end.
        kind: The type of the numbers.
        change: Makes them, of its values as an array.
    """

    def __init__(self, source: ir.Value, kind: ir.DataType, change: Callable[[Any], Any]) -> None:
        self.source, self._change = source, change
        shape = () if source.shape is None else tuple(int(size) for size in source.shape)  # type: ignore[arg-type]
        super().__init__(self._numbers, dtype=kind, shape=ir.Shape(shape))

    def _numbers(self) -> ir.TensorProtocol:
        assert self.source.const_value is not None  # it has, once all is translated
        return ir.tensor(self._change(self.source.const_value.numpy()), dtype=self.dtype)


class _Writer:
    """Writes operators on one grid into the graph that is being translated."""

    def __init__(self, scale: Any, zero_point: Any, axis: int, block: int, precision: Precision) -> None:
        if precision.has_scale_format:
            raise ExportError(
                f"{precision.name} has scales in a format of their own, so that files hold its numbers, not the float "
                "weight. Call embedl_deploy.export_onnx, or torch.onnx.export on freeze(model)."
            )
        recorder: Any = evaluator.default()
        self.op, self.precision = recorder.opset, precision
        half = scale.dtype.name.lower() if scale.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else None
        require_opset(precision, blocks=block > 0, half=half)
        self.type = ir.DataType[precision.format.onnx_type]
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


def _refuse(*_given: Any) -> NoReturn:
    raise ExportError(
        "torch.onnx.export(dynamo=False) has no operators for quantized models: that exporter, which is deprecated, "
        "knows neither FP8 nor INT4 nor scales in blocks. Leave dynamo=False out, or call embedl_deploy.export_onnx."
    )


for _name in ("fake_quantize", "fake_quantize_dynamic", "fake_quantize_call", "dequantize", "dequantize_blocks"):
    register_custom_op_symbolic(f"embedl_deploy::{_name}", _refuse, 7)
