"""Small ONNX models that break one rule of TensorRT each, and near misses that break none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from support.onnx_files import E2M1, FLOAT, FLOAT16, FP8, INT4, INT8, UINT8, OnnxFile

#: Makes a model in a file that is empty but for its operator set, and gives the output.
Build = Callable[[OnnxFile], ir.Value]
E5M2 = ir.DataType.FLOAT8E5M2
INT64 = ir.DataType.INT64
#: A scale for each of 8 channels.
PER_CHANNEL = np.full(8, 0.05)


@dataclass(frozen=True)
class Case:
    """A model and what a rule says about it.

    Attributes:
        rule: Id of the rule.
        what: What is wrong with the model, or nearly.
        build: Makes it.
        severity: Of the finding; empty for a near miss.
        operator: Of the node that the finding is at.
        message: Part of the finding's message.
        refused: Whether TensorRT for RTX 1.7 refuses it; ``None`` if it must not be asked, because its process ends.
        opset: Version of the operator set.
        dtype: Type of the output.
        target: What is compiled for.
    """

    rule: str
    what: str
    build: Build
    severity: str = ""
    operator: str = ""
    message: str = ""
    refused: bool | None = False
    opset: int = 21
    dtype: ir.DataType = FLOAT
    target: str = "sm89"

    def __str__(self) -> str:
        return f"{self.rule} {self.what}"

    def model(self) -> ir.Model:
        """The model, made anew."""
        file = OnnxFile(self.opset)
        return file.model(self.build(file), dtype=self.dtype)


def image(f: OnnxFile, channels: int = 8, dtype: ir.DataType = FLOAT) -> ir.Value:
    return f.input(1, channels, 6, 6, dtype=dtype)


def conv(f: OnnxFile, x: ir.Value | None = None, weight: ir.Value | None = None, **attributes: Any) -> ir.Value:
    """An INT8 convolution of 8 channels, but for what is given."""
    return f.conv(x or f.qdq(image(f)), weight or f.qdq_weight(8, 8, 3, 3), **attributes)


def product(f: OnnxFile, weight: ir.Value, x: ir.Value | None = None) -> ir.Value:
    return f.node("MatMul", x or f.input(2, 64), weight)


def transposed(f: OnnxFile, axis: int, group: int = 1) -> ir.Value:
    shape = (8, 16 // group, 3, 3)
    return f.node("ConvTranspose", f.qdq(image(f)), f.qdq_weight(*shape, axis=axis), group=group)


def settings(
    f: OnnxFile, scale: Any, zero: Any, scales: ir.DataType = FLOAT, zeros: ir.DataType = INT8
) -> list[ir.Value]:
    return [f.constant(scale, scales), f.constant(zero, zeros)]


def runtime_scale(f: OnnxFile) -> ir.Value:
    x = image(f)
    return conv(f, f.pair(x, f.node("ReduceMax", f.node("Abs", x), keepdims=0), f.constant(0, INT8)))


def blocks(f: OnnxFile, shape: tuple[int, ...], scales: tuple[int, ...], axis: int, size: int) -> ir.Value:
    weight = f.dequantize(f.weight(*shape, dtype=INT4), np.full(scales, 0.05), INT4, axis=axis, block_size=size)
    return f.node("MatMul", f.input(*shape[:-2], 2, shape[-2]), weight)


def nvfp4(f: OnnxFile, smallest: float = 0.5, *, half: bool = False) -> ir.Value:
    """A product with a weight in NVFP4 alone; the smallest of the scales of its blocks is given."""
    scales = np.full((8, 4), 2.0)
    scales[0, 0] = smallest
    scale = f.node("DequantizeLinear", f.constant(scales, FP8), f.constant(0.01))
    scale.type, scale.shape = ir.TensorType(FLOAT), ir.Shape((8, 4))
    weight = f.constant(np.ones((8, 64)), E2M1)
    given = f.node("DequantizeLinear", weight, scale, axis=-1, block_size=16)
    if half:
        given.type = ir.TensorType(FLOAT)
        given = f.node("Cast", given, to=int(FLOAT16))
        given.type = ir.TensorType(FLOAT16)
    given = f.node("Transpose", given, perm=[1, 0])
    return product(f, given, f.input(2, 64, dtype=FLOAT16 if half else FLOAT))


def in_blocks_of_32(f: OnnxFile, numbers: ir.DataType, scales: ir.DataType, given: ir.DataType) -> ir.Value:
    """A product with a weight alone, dequantized to the type ``given``."""
    weight, scale = f.constant(np.ones((64, 8)), numbers), f.constant(np.full((2, 8), 0.25), scales)
    found = f.node("DequantizeLinear", weight, scale, axis=0, block_size=32, output_dtype=int(given))
    found.type = ir.TensorType(given)
    return product(f, found, f.input(2, 64, dtype=given))


def own_fp4(f: OnnxFile, *shape: int, block: int = 16) -> ir.Value:
    """An activation that TensorRT's operator quantizes to NVFP4, and back."""
    x, scale = f.input(*shape), f.constant(0.01)
    settings = {"axis": -1, "block_size": block, "scale_type": int(FP8), "domain": "trt", "outputs": 2}
    numbers, scales = f.node("TRT_FP4DynamicQuantize", x, scale, **settings)
    scale_of_blocks = f.node("DequantizeLinear", scales, scale)
    for value, kind in ((numbers, E2M1), (scales, FP8), (scale_of_blocks, FLOAT)):
        value.type = ir.TensorType(kind)
    return f.node("DequantizeLinear", numbers, scale_of_blocks, axis=-1, block_size=block)


def own_mxfp8(f: OnnxFile, *, cast: bool = False, standard: bool = False) -> ir.Value:
    """A product in MXFP8 by TensorRT's operators, in float16.

    With ``cast`` the activation is dequantized in float32 and cast; with ``standard`` the weight is dequantized by
    ONNX's operator.
    """
    settings = {"axis": -1, "block_size": 32}
    own = {**settings, "domain": "trt"}
    x = f.input(8, 64, dtype=FLOAT16)
    numbers, scales = f.node("TRT_MXFP8DynamicQuantize", x, **own, output_dtype=int(FP8), outputs=2)
    kind = FLOAT if cast else FLOAT16
    given = f.node("TRT_MXFP8DequantizeLinear", numbers, scales, **own, output_dtype=int(kind))
    numbers.type, scales.type, given.type = (ir.TensorType(each) for each in (FP8, UINT8, kind))
    if cast:
        given = f.node("Cast", given, to=int(FLOAT16))
    weight = f.constant(np.ones((8, 64)), FP8)
    if standard:
        found = f.node("DequantizeLinear", weight, f.constant(np.ones((8, 2)), FLOAT16), **settings)
    else:
        exponents = f.constant(np.full((8, 2), 127), UINT8)
        found = f.node("TRT_MXFP8DequantizeLinear", weight, exponents, **own, output_dtype=int(FLOAT16))
    found.type, given.type = ir.TensorType(FLOAT16), ir.TensorType(FLOAT16)
    return product(f, f.node("Transpose", found, perm=[1, 0]), given)


def bias(f: OnnxFile, value: ir.Value) -> ir.Value:
    return f.conv(f.qdq(image(f)), f.qdq_weight(8, 8, 3, 3), value)


def behind(f: OnnxFile, kind: str, *more: ir.Value) -> ir.Value:
    return f.node(kind, f.qdq(conv(f)), *more)


def batch_norm(f: OnnxFile, x: ir.Value) -> ir.Value:
    return f.node("BatchNormalization", x, *(f.constant(np.ones(8)) for _ in range(4)))


def residual(f: OnnxFile, quantize: bool) -> ir.Value:
    x = f.qdq(image(f))
    y = conv(f, x)
    return f.qdq(f.node("Relu", f.node("Add", f.qdq(y) if quantize else y, x)))


def attention(f: OnnxFile, *, late: bool = False, scale: float = 1 / 127, dtype: ir.DataType = INT8) -> ir.Value:
    query, key, value = (f.input(1, 2, 16, 32) for _ in range(3))
    factor = f.constant(0.17)
    query = query if late else f.node("Mul", query, factor)
    key = f.node("Transpose", f.qdq(key, dtype=dtype), perm=[0, 1, 3, 2])
    scores = f.node("MatMul", f.qdq(query, dtype=dtype), key)
    softmax = f.node("Softmax", f.node("Mul", scores, factor) if late else scores, axis=-1)
    return f.node("MatMul", f.qdq(softmax, scale, dtype), f.qdq(value, dtype=dtype))


def normalization(f: OnnxFile) -> ir.Value:
    x, axes = f.input(2, 64), f.constant([-1], INT64)
    centred = f.node("Sub", x, f.node("ReduceMean", x, axes))
    variance = f.node("ReduceMean", f.node("Mul", centred, centred), axes)
    return f.node("Div", centred, f.node("Sqrt", f.node("Add", variance, f.constant(1e-5))))


def concat(f: OnnxFile, *scales: float | None) -> ir.Value:
    parts = [image(f) if scale is None else f.qdq(image(f), scale) for scale in scales]
    return f.qdq(f.node("Concat", *parts, axis=1))


def grouped(f: OnnxFile, channels: int, groups: int, dtype: ir.DataType = INT8) -> ir.Value:
    weight = f.qdq_weight(channels, channels // groups, 3, 3, dtype=dtype)
    return conv(f, f.qdq(image(f, channels), dtype=dtype), weight, group=groups)


def siblings(f: OnnxFile, *scales: float) -> ir.Value:
    x = image(f)
    return f.node("Add", *(conv(f, f.qdq(x, scale)) for scale in scales))


def max_pool(f: OnnxFile, scale: float) -> ir.Value:
    return conv(f, f.qdq(f.node("MaxPool", f.qdq(image(f)), kernel_shape=[2, 2]), scale))


def integer_product(f: OnnxFile) -> ir.Value:
    return f.node("Cast", f.node("MatMulInteger", f.quantize(f.input(2, 64)), f.weight(64, 8, dtype=INT8)), to=1)


def fp8_conv(f: OnnxFile, entering: int = 16) -> ir.Value:
    weight = f.qdq_weight(16, entering, 3, 3, dtype=FP8)
    return conv(f, f.qdq(image(f, entering), dtype=FP8), weight)


def fp16_conv(f: OnnxFile, scales: ir.DataType = FLOAT16) -> ir.Value:
    x = f.pair(image(f, dtype=FLOAT16), *settings(f, 0.05, 0, scales))
    weight = f.pair(f.weight(8, 8, 3, 3, dtype=FLOAT16), *settings(f, PER_CHANNEL, PER_CHANNEL * 0, scales), axis=0)
    return conv(f, x, weight)
