"""Small ONNX models that break one rule of ONNX Runtime each, what they become there, and near misses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from support.onnx_files import FLOAT, INT8, INT32, UINT8, OnnxFile

INT64 = ir.DataType.INT64
#: Makes a model in a file that is empty but for its operator set, and gives the output.
Build = Callable[[OnnxFile], ir.Value]
SCALE, WEIGHT_SCALE = 0.03, 0.02


@dataclass(frozen=True)
class Case:
    """A model, what a rule says about it, and what the runtime does with it.

    Attributes:
        rule: Id of the rule.
        what: What is wrong with the model, or nearly.
        build: Makes it.
        severity: Of the finding; empty for a near miss.
        operator: Of the node that the finding is at.
        message: Part of the finding's message.
        has: A kernel that the optimized model has.
        lacks: One that it has not.
        outcome: ``"runs"`` with the right numbers, or ``"refused"``, ``"fails"`` when it is run, or is ``"wrong"``.
        opset: Version of the operator set.
        ir_version: Version of ONNX.
    """

    rule: str
    what: str
    build: Build
    severity: str = ""
    operator: str = ""
    message: str = ""
    has: str = ""
    lacks: str = ""
    outcome: str = "runs"
    opset: int = 21
    ir_version: int = 10
    dtype: ir.DataType = FLOAT

    def __str__(self) -> str:
        return f"{self.rule} {self.what}"

    def model(self) -> ir.Model:
        """The model, made anew."""
        file = OnnxFile(self.opset, com_microsoft=1)
        model = file.model(self.build(file), dtype=self.dtype)
        model.ir_version = self.ir_version
        return model


def warning(
    rule: str,
    what: str,
    operator: str,
    message: str,
    build: Build,
    has: str = "",
    lacks: str = "",
    **more: Any,
) -> Case:
    """A file that runs, more slowly than intended."""
    return Case(rule, what, build, "warning", operator, message, has, lacks, **more)


def error(rule: str, what: str, operator: str, message: str, build: Build, outcome: str, **more: Any) -> Case:
    """A file that does not run, or computes something else."""
    return Case(rule, what, build, "error", operator, message, outcome=outcome, **more)


def info(
    rule: str, what: str, operator: str, message: str, build: Build, has: str = "", lacks: str = "", **more: Any
) -> Case:
    """A file that is good as it is."""
    return Case(rule, what, build, "info", operator, message, has, lacks, **more)


def near(rule: str, what: str, build: Build, has: str = "", lacks: str = "", **more: Any) -> Case:
    """A file that a rule has nothing to say about."""
    return Case(rule, what, build, has=has, lacks=lacks, **more)


def qdq(
    f: OnnxFile, x: ir.Value, scale: Any = SCALE, zero: Any = 128, dtype: ir.DataType = UINT8, **attributes: Any
) -> ir.Value:
    """QuantizeLinear and DequantizeLinear, to UINT8 with a zero point in the middle if nothing else is said."""
    scale = np.asarray(scale, np.float32)
    return f.pair(x, f.constant(scale), f.constant(np.full(scale.shape, zero), dtype), **attributes)


def signed(f: OnnxFile, x: ir.Value, **attributes: Any) -> ir.Value:
    """The same to INT8."""
    return qdq(f, x, zero=0, dtype=INT8, **attributes)


def image(f: OnnxFile, *shape: int, **settings: Any) -> ir.Value:
    """An input that is quantized."""
    return qdq(f, f.input(*(shape or (1, 8, 6, 6))), **settings)


def weight(
    f: OnnxFile, *shape: int, axis: int | None = 0, scales: Any = None, dtype: ir.DataType = INT8, zero: int = 0
) -> ir.Value:
    """A stored weight of integers, with a scale for each slice along the axis; all different."""
    numbers = f.random.integers(-64, 65, shape) + zero
    if scales is None:
        scales = WEIGHT_SCALE if axis is None else np.linspace(WEIGHT_SCALE / 4, WEIGHT_SCALE, shape[axis])
    scale = f.constant(scales)
    attributes = {} if axis is None else {"axis": axis}
    return f.node(
        "DequantizeLinear",
        f.constant(numbers, dtype),
        scale,
        f.constant(np.full(np.shape(scales), zero), dtype),
        **attributes,
    )


def bias(f: OnnxFile, count: int = 8, factor: float = 1.0) -> ir.Value:
    """A bias in INT32, large beside the products, whose scale is wrong by a factor."""
    scales = np.linspace(WEIGHT_SCALE / 4, WEIGHT_SCALE, count) * SCALE
    numbers = f.random.integers(2000, 4000, count)
    stored, scale = f.constant(numbers, INT32), f.constant(scales * factor)
    return f.node("DequantizeLinear", stored, scale, f.constant(np.zeros(count), INT32), axis=0)


def conv(f: OnnxFile, x: ir.Value | None = None, *more: ir.Value, **attributes: Any) -> ir.Value:
    """A convolution of 8 channels with quantized inputs, but for what is given."""
    return f.conv(x or image(f), *(more or (weight(f, 8, 8, 3, 3),)), **attributes)


def gemm(f: OnnxFile, *more: ir.Value, x: ir.Value | None = None, **attributes: Any) -> ir.Value:
    """A Gemm of 16 to 8 channels with quantized inputs, but for what is given."""
    return f.node("Gemm", x or image(f, 4, 16), *(more or (weight(f, 8, 16),)), **{"transB": 1, **attributes})


def product(f: OnnxFile, *, x: ir.Value | None = None, w: ir.Value | None = None) -> ir.Value:
    """A MatMul of 16 to 8 channels with quantized inputs, but for what is given."""
    return f.node("MatMul", x or image(f, 4, 16), w or weight(f, 16, 8, axis=1))


def float_product(f: OnnxFile, w: ir.Value) -> ir.Value:
    """A MatMul of an input in float."""
    return f.node("MatMul", f.input(4, 128), w)


def blocks(f: OnnxFile, block: int, axis: int = 0, dtype: ir.DataType = ir.DataType.INT4) -> ir.Value:
    """A weight of 128 to 32 channels in blocks."""
    shape = [128, 32]
    shape[axis] //= block
    stored = f.weight(128, 32, dtype=dtype)
    settings = f.constant(np.full(shape, 0.05)), f.constant(np.zeros(shape), dtype)
    return f.node("DequantizeLinear", stored, *settings, axis=axis, block_size=block)


def numbers(f: OnnxFile, *values: int) -> ir.Value:
    """Whole numbers, such as a shape."""
    return f.constant(values, INT64)


def fp8(f: OnnxFile, x: ir.Value) -> ir.Value:
    """Q/DQ to FP8."""
    return f.qdq(x, 0.05, ir.DataType.FLOAT8E4M3FN)


def dynamic(f: OnnxFile, x: ir.Value) -> ir.Value:
    """What DynamicQuantizeLinear gives, dequantized."""
    return f.node("DequantizeLinear", *f.node("DynamicQuantizeLinear", x, outputs=3))


def runtime_scale(f: OnnxFile, x: ir.Value) -> tuple[ir.Value, ...]:
    """A scale and a zero point that are computed from an input."""
    largest = f.node("ReduceMax", f.node("Abs", x), keepdims=0)
    return f.node("Div", largest, f.constant(255.0)), f.constant(0, UINT8)


def resized(f: OnnxFile, mode: str = "nearest", scale: float = SCALE) -> ir.Value:
    """Twice as large, quantized before and behind."""
    y = f.node("Resize", image(f), None, f.constant([1.0, 1.0, 2.0, 2.0]), mode=mode)
    return qdq(f, y, scale)
