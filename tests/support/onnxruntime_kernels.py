"""Cases of the rules of ONNX Runtime about kernels: number formats, slow and missing ones, weights alone."""

import numpy as np

from support.onnx_files import BFLOAT16, E2M1, E8M0, FLOAT, FLOAT16, FP8, INT4, INT8, INT16, UINT8
from support.onnxruntime_files import (
    SCALE,
    bias,
    blocks,
    conv,
    dynamic,
    error,
    float_product,
    fp8,
    gemm,
    image,
    info,
    near,
    numbers,
    product,
    qdq,
    resized,
    signed,
    warning,
    weight,
)

Q, DQ = "QuantizeLinear", "DequantizeLinear"


def grouped(f, groups, channels=32):
    return qdq(f, conv(f, image(f, 1, channels, 6, 6), weight(f, channels, channels // groups, 3, 3), group=groups))


def stored(f, kind, scales):
    """A product with a weight in blocks."""
    rows, scale = f.constant(np.ones((64, 8)), kind), f.constant(np.full((2, 8), 0.25), scales)
    given = f.node("DequantizeLinear", rows, scale, axis=0, block_size=32, output_dtype=int(FLOAT))
    return f.node("MatMul", f.input(2, 64), given)


def table(f, quantize):
    rows = f.node(
        "Gather", f.dequantize(f.constant(f.random.integers(0, 255, (50, 8)), UINT8), SCALE, UINT8), numbers(f, 3, 7)
    )
    return f.qdq(rows, SCALE, UINT8) if quantize else f.node("Softplus", rows)


def run_time_product(f, with_bias):
    y = f.node("MatMul", dynamic(f, f.input(4, 16)), weight(f, 16, 8, axis=1))
    return f.node("Add", y, f.weight(8)) if with_bias else y


def half(f):
    x = f.input(1, 8, 6, 6, dtype=FLOAT16)
    settings = f.constant(SCALE, FLOAT16), f.constant(128, UINT8)
    return f.pair(f.node("Sigmoid", f.pair(x, *settings)), *settings)


def in_bfloat16(f, kind, dtype=BFLOAT16):
    return f.node("Cast", f.node(kind, f.node("Cast", f.input(2, 3), to=int(dtype))), to=int(FLOAT))


def signed_residual(f):
    x = signed(f, f.input(1, 8, 6, 6))
    return signed(f, f.node("Add", signed(f, conv(f, x)), x))


CASES = [
    error(
        "ORT-09",
        "FP8",
        "Conv",
        "no session",
        lambda f: fp8(f, conv(f, fp8(f, f.input(1, 8, 6, 6)), fp8(f, f.weight(8, 8, 3, 3)))),
        "refused",
    ),
    error(
        "ORT-09",
        "FP8 product",
        "MatMul",
        "no session",
        lambda f: f.node("MatMul", fp8(f, f.input(2, 8)), fp8(f, f.weight(8, 8))),
        "refused",
    ),
    error(
        "ORT-09",
        "pooled INT4",
        "MaxPool",
        "INT4: no session",
        lambda f: f.qdq(f.node("MaxPool", f.qdq(f.input(1, 8, 6, 6), 0.3, INT4), kernel_shape=[2, 2]), 0.3, INT4),
        "refused",
    ),
    warning(
        "ORT-09",
        "INT16",
        "Add",
        "quantized to INT16",
        lambda f: f.qdq(
            f.node("Add", f.qdq(f.input(2, 8), 0.001, INT16), f.qdq(f.input(2, 8), 0.001, INT16)), 0.001, INT16
        ),
        "Add",
        "QLinearAdd",
    ),
    warning(
        "ORT-09",
        "INT4 weight",
        "MatMul",
        "quantized to INT4",
        lambda f: qdq(f, product(f, x=image(f, 4, 128), w=blocks(f, 32))),
        "MatMul",
        "MatMulNBits",
    ),
    near("ORT-09", "INT8", lambda f: qdq(f, product(f)), "QLinearMatMul"),
    near("ORT-09", "FP8 of a function without kernel", lambda f: fp8(f, f.node("Softplus", fp8(f, f.input(2, 8))))),
    warning(
        "ORT-10",
        "convolution",
        "Conv",
        "its weight is UINT8; expected INT8",
        lambda f: qdq(f, conv(f, None, weight(f, 8, 8, 3, 3, dtype=UINT8, zero=128))),
        "QLinearConv",
    ),
    near("ORT-10", "two activations", lambda f: qdq(f, product(f, w=image(f, 16, 8))), "QLinearMatMul"),
    near(
        "ORT-10", "alone", lambda f: float_product(f, weight(f, 128, 8, axis=1, dtype=UINT8, zero=128)), "MatMulNBits"
    ),
    info(
        "ORT-11",
        "convolution",
        DQ,
        "INT8 activations, here and at 1 more: x86 turns them into UINT8",
        lambda f: signed(f, conv(f, signed(f, f.input(1, 8, 6, 6)))),
        "QLinearConv",
    ),
    error(
        "ORT-11",
        "moved",
        DQ,
        "INT8 with the QuantizeLinear behind Reshape 'Reshape_2'",
        lambda f: signed(f, conv(f, f.node("Reshape", signed(f, f.input(1, 288)), numbers(f, 1, 8, 6, 6)))),
        "refused",
    ),
    error(
        "ORT-11",
        "attribute",
        DQ,
        "INT8 with the attribute output_dtype",
        lambda f: f.node("Softplus", signed(f, f.input(2, 8), output_dtype=3)),
        "refused",
    ),
    warning(
        "ORT-11",
        "constant",
        DQ,
        "Mul 'Mul_3' is computed in float on x86: it has a constant in INT8",
        lambda f: signed(
            f,
            f.node("Mul", signed(f, f.input(1, 8, 6, 6)), f.dequantize(f.constant(np.full((8, 1, 1), 99), INT8), 0.01)),
        ),
        "Mul",
        "QLinearMul",
    ),
    warning(
        "ORT-11",
        "residual",
        DQ,
        "stays INT8 on x86: 2 nodes read it",
        signed_residual,
        "Conv",
        "QLinearConv",
    ),
    near("ORT-11", "UINT8", lambda f: qdq(f, conv(f)), "QLinearConv"),
    near(
        "ORT-11",
        "moved UINT8",
        lambda f: qdq(f, conv(f, f.node("Reshape", image(f, 1, 288), numbers(f, 1, 8, 6, 6)))),
        "QLinearConv",
    ),
    info(
        "ORT-12",
        "eight bits",
        "Conv",
        "weights over 64: products saturate on x86 without VNNI",
        lambda f: qdq(f, conv(f, None, f.dequantize(f.constant(np.full((8, 8, 3, 3), 65), INT8), 0.001))),
        "QLinearConv",
    ),
    info(
        "ORT-12",
        "quantized in the file",
        "MatMul",
        "weights over 64",
        lambda f: product(
            f, w=f.qdq(f.node("Transpose", f.constant(np.eye(8, 16)), perm=[1, 0]), [1 / 65] * 8, axis=1)
        ),
        "MatMulIntegerToFloat",
    ),
    near(
        "ORT-12",
        "seven bits, quantized in the file",
        lambda f: product(f, w=f.qdq(f.constant(np.eye(16, 8)), [1 / 64] * 8, axis=1)),
        "MatMulIntegerToFloat",
    ),
    near("ORT-12", "seven bits", lambda f: qdq(f, conv(f)), "QLinearConv"),
    near("ORT-12", "alone", lambda f: float_product(f, f.dequantize(f.constant(np.full((128, 8), 99), INT8), 0.001))),
    warning("ORT-13", "quantized", Q, "scales in float16", half, "Sigmoid", "QLinearSigmoid", dtype=FLOAT16),
    warning(
        "ORT-13",
        "product",
        "MatMul",
        "float16 is converted",
        lambda f: f.node("MatMul", f.input(4, 16, dtype=FLOAT16), f.weight(16, 8, dtype=FLOAT16)),
        "Cast",
        dtype=FLOAT16,
    ),
    near("ORT-13", "float32", lambda f: f.node("MatMul", f.input(4, 16), f.weight(16, 8)), "MatMul", "Cast"),
    info("ORT-14", "GELU", "Gelu", "Gelu is computed in float", lambda f: qdq(f, f.node("Gelu", image(f))), "Gelu"),
    info(
        "ORT-14",
        "mean of maps",
        "ReduceMean",
        "; GlobalAveragePool has an integer kernel",
        lambda f: qdq(f, f.node("ReduceMean", image(f), numbers(f, 2, 3))),
        "ReduceMean",
    ),
    info("ORT-14", "linear Resize", "Resize", "in float", lambda f: resized(f, "linear"), Q),
    warning(
        "ORT-14",
        "ConvTranspose",
        "ConvTranspose",
        "its weight is dequantized in every run",
        lambda f: qdq(f, f.node("ConvTranspose", image(f), weight(f, 8, 8, 3, 3, axis=None))),
        "ConvTranspose",
    ),
    warning(
        "ORT-14",
        "factor of Gemm",
        "Gemm",
        "computed in float: alpha is 2; expected 1, or no bias",
        lambda f: qdq(f, gemm(f, weight(f, 8, 16), bias(f), alpha=2.0)),
        "Gemm",
        "QGemm",
    ),
    near(
        "ORT-14",
        "GlobalAveragePool",
        lambda f: qdq(f, f.node("GlobalAveragePool", image(f))),
        "QLinearGlobalAveragePool",
    ),
    near("ORT-14", "LeakyRelu", lambda f: qdq(f, f.node("LeakyRelu", image(f))), "QLinearLeakyRelu"),
    near("ORT-14", "float GELU", lambda f: f.node("Gelu", f.input(2, 8)), "Gelu"),
    warning(
        "ORT-15",
        "Softmax",
        "Softmax",
        "slower",
        lambda f: qdq(f, f.node("Softmax", image(f)), 1 / 256, 0),
        "QLinearSoftmax",
    ),
    warning(
        "ORT-15",
        "AveragePool",
        "AveragePool",
        "slower than that of float32",
        lambda f: qdq(f, f.node("AveragePool", image(f), kernel_shape=[2, 2])),
        "QLinearAveragePool",
    ),
    warning("ORT-15", "groups", "Conv", "8 groups of 4 channels", lambda f: grouped(f, 8), "QLinearConv"),
    near("ORT-15", "depthwise", lambda f: grouped(f, 32), "QLinearConv"),
    near("ORT-15", "large groups", lambda f: grouped(f, 2, 64), "QLinearConv"),
    near("ORT-15", "softmax in float", lambda f: qdq(f, f.node("Softmax", product(f))), "Softmax"),
    warning(
        "ORT-16",
        "convolution",
        "Conv",
        "no kernel of convolutions",
        lambda f: f.conv(f.input(1, 8, 6, 6), weight(f, 8, 8, 3, 3)),
        DQ,
    ),
    warning(
        "ORT-16",
        "transposed Gemm",
        "Gemm",
        "expected transB=0",
        lambda f: gemm(f, x=f.input(4, 16)),
        DQ,
    ),
    warning(
        "ORT-16",
        "Gemm and ReLU",
        "Gemm",
        "it is made one node with Relu 'Relu_2' first",
        lambda f: f.node("Softplus", f.node("Relu", gemm(f, weight(f, 16, 8, axis=1), x=f.input(4, 16), transB=0))),
        "FusedGemm",
        "MatMulNBits",
    ),
    warning("ORT-16", "blocks of 8", "MatMul", "blocks of 8; expected", lambda f: float_product(f, blocks(f, 8)), DQ),
    warning("ORT-16", "blocks of rows", "MatMul", "along axis 1", lambda f: float_product(f, blocks(f, 16, 1)), DQ),
    warning(
        "ORT-16", "scales of rows", "MatMul", "scales along axis 0", lambda f: float_product(f, weight(f, 128, 8)), DQ
    ),
    warning(
        "ORT-16",
        "moved blocks",
        "MatMul",
        "moved behind its blocks",
        lambda f: f.node("MatMul", f.input(4, 32), f.node("Transpose", blocks(f, 16, 1), perm=[1, 0])),
        DQ,
    ),
    *(
        near("ORT-16", f"blocks of {size}", lambda f, size=size: float_product(f, blocks(f, size)), "MatMulNBits")
        for size in (16, 32, 128)
    ),
    near("ORT-16", "per column", lambda f: float_product(f, weight(f, 128, 8, axis=1)), "MatMulNBits", DQ),
    near("ORT-16", "Gemm", lambda f: gemm(f, weight(f, 16, 8, axis=1), x=f.input(4, 16), transB=0), "MatMulNBits"),
    near(
        "ORT-16",
        "Gemm, and a ReLU of the model",
        lambda f: f.node("Relu", gemm(f, weight(f, 16, 8, axis=1), x=f.input(4, 16), transB=0)),
        "MatMulNBits",
        "FusedGemm",
    ),
    near(
        "ORT-16",
        "transposed",
        lambda f: float_product(f, f.node("Transpose", weight(f, 8, 128), perm=[1, 0])),
        "MatMulNBits",
    ),
    warning("ORT-17", "table", "Gather", "the whole table, 50×8", lambda f: table(f, False), DQ),
    near("ORT-17", "table", lambda f: table(f, True), "Gather"),
    warning(
        "ORT-18", "bias", "MatMul", "becomes a Gemm", lambda f: run_time_product(f, True), DQ, "DynamicQuantizeMatMul"
    ),
    near("ORT-18", "no bias", lambda f: run_time_product(f, False), "DynamicQuantizeMatMul", DQ),
    error(
        "ORT-19", "operator set", "Relu", "operator set 27", lambda f: f.node("Relu", f.input(2)), "refused", opset=27
    ),
    error("ORT-19", "IR", "Relu", "IR version 14", lambda f: f.node("Relu", f.input(2)), "refused", ir_version=14),
    near("ORT-19", "newest", lambda f: f.node("Relu", f.input(2)), opset=26, ir_version=13),
    error("ORT-20", "E2M1", DQ, "in FLOAT4E2M1", lambda f: stored(f, E2M1, FLOAT), "refused", opset=23),
    error(
        "ORT-20",
        "E2M1 at run time",
        Q,
        "in FLOAT4E2M1",
        lambda f: f.qdq(f.input(2, 64), 0.5, E2M1),
        "refused",
        opset=23,
    ),
    error("ORT-20", "E8M0", DQ, "in FLOAT8E8M0", lambda f: stored(f, FP8, E8M0), "refused", opset=24),
    near("ORT-20", "E4M3", lambda f: stored(f, FP8, FLOAT), opset=24),
    *(
        error("ORT-21", kind, kind, f"{kind} in bfloat16", lambda f, kind=kind: in_bfloat16(f, kind), "refused")
        for kind in ("Relu", "Sqrt", "Exp")
    ),
    near("ORT-21", "a cast", lambda f: in_bfloat16(f, "Identity")),
    near("ORT-21", "float16", lambda f: in_bfloat16(f, "Relu", FLOAT16)),
]
