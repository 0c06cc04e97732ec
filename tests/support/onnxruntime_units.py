"""Cases of the rules of ONNX Runtime about node units: what stands around an operator, and its scales."""

import numpy as np

from support.onnx_files import INT8, UINT8
from support.onnxruntime_files import (
    SCALE,
    bias,
    conv,
    error,
    gemm,
    image,
    near,
    numbers,
    product,
    qdq,
    resized,
    runtime_scale,
    signed,
    warning,
    weight,
)

Q, DQ = "QuantizeLinear", "DequantizeLinear"


def two_readers(f):
    y = conv(f)
    return f.node("Add", qdq(f, y), f.node("Softplus", y))


def shared(f):
    """One dequantized tensor, two convolutions, one of them with a reader in float beside."""
    x = image(f)
    return f.node("Sub", f.node("Softplus", x), f.node("Sub", qdq(f, conv(f, x)), qdq(f, conv(f, x))))


def rectified(f, x, kind="Relu", **settings):
    limits = (f.constant(0.0), f.constant(6.0)) if kind == "Clip" else ()
    return qdq(f, f.node(kind, x, *limits), **settings)


def silu(f, gate):
    x = qdq(f, conv(f))
    return qdq(f, f.node("Mul", x, gate(f, f.node("Sigmoid", x))))


def residual(f, quantize):
    x = image(f)
    y = conv(f, x)
    return qdq(f, f.node("Add", qdq(f, y) if quantize else y, x))


def flattened(f, quantize, kind="Flatten"):
    x = image(f, 1, 16, 1, 1)
    y = f.node(kind, x, *(() if kind == "Flatten" else (numbers(f, 1, 16),)))
    return qdq(f, gemm(f, x=qdq(f, y) if quantize else y))


def split(f, scale):
    first, second = f.node("Split", image(f), outputs=2, axis=1, num_outputs=2)
    return f.node("Add", qdq(f, first, scale), qdq(f, second, scale))


def linear(f, vector, quantize=False, rows=4):
    y = f.node("Add", f.node("MatMul", image(f, 1, rows, 16), weight(f, 16, 8, axis=1)), vector)
    return qdq(f, y) if quantize else f.node("Softplus", y)


def large(f):
    """A bias in float of which INT32 cannot hold the last two in steps of input × weight."""
    return f.constant([0.0] * 6 + [1e7, 1e8])


def activation_scales(f, build, count=8, axis=1, *shape):
    return qdq(f, build(f, image(f, *shape, scale=np.linspace(SCALE / 2, SCALE, count), axis=axis)))


def at_run_time(f, build):
    """An input that is quantized by a scale that is computed, through an operator, quantized by it again."""
    x = f.input(4, 16)
    settings = runtime_scale(f, x)
    return f.pair(build(f, f.pair(x, *settings)), *settings)


def branches(f, quantize=True):
    """A map that is pooled, and read by two."""
    x = f.node("MaxPool", image(f), kernel_shape=[2, 2])
    return f.node("Sub", qdq(f, f.node("Sigmoid", x)), f.node("Softplus", qdq(f, x) if quantize else x))


CASES = [
    warning("ORT-01", "output of the model", "Conv", "output of the model", conv, "Conv", "QLinearConv"),
    warning("ORT-01", "two readers", "Conv", "2 nodes read its output", two_readers, "Conv", "QLinearConv"),
    warning(
        "ORT-01",
        "two quantizers",
        "Conv",
        "(QuantizeLinear)",
        lambda f: (lambda y: f.node("Add", qdq(f, y), qdq(f, y, 0.05)))(conv(f)),
        "Conv",
        "QLinearConv",
    ),
    warning(
        "ORT-01",
        "activation without kernel between",
        "Conv",
        "weight is dequantized in every run: Sigmoid 'Sigmoid_4' reads",
        lambda f: qdq(f, f.node("Sigmoid", conv(f))),
        "FusedConv",
        "QLinearConv",
    ),
    warning("ORT-01", "residual", "Conv", "Add 'Add_4' reads", lambda f: residual(f, False), "Conv", "QLinearConv"),
    warning(
        "ORT-01", "gate", "Sigmoid", "Mul 'Mul_7' reads", lambda f: silu(f, lambda f, y: y), "Sigmoid", "QLinearMul"
    ),
    warning(
        "ORT-01",
        "flattened before it is quantized",
        "GlobalAveragePool",
        "Flatten 'Flatten_3' reads",
        lambda f: qdq(f, f.node("Flatten", f.node("GlobalAveragePool", image(f)))),
        "GlobalAveragePool",
    ),
    *(
        warning(
            "ORT-01",
            kind,
            kind,
            "output of the model",
            lambda f, kind=kind: f.node(kind, image(f), image(f)),
            kind,
            f"QLinear{kind}",
        )
        for kind in ("Add", "Mul")
    ),
    warning(
        "ORT-01",
        "product with two readers",
        "MatMul",
        "QuantizeLinear and 1 more read its output",
        lambda f: (lambda y: f.node("Sub", qdq(f, y), f.node("Softplus", y)))(product(f)),
        "MatMul",
        "MatMulIntegerToFloat",
    ),
    warning(
        "ORT-01",
        "Gemm with two quantizers",
        "Gemm",
        "QuantizeLinear and 1 more",
        lambda f: (lambda y: f.node("Sub", qdq(f, y), qdq(f, y, 0.05)))(gemm(f)),
        "Gemm",
        "QGemm",
    ),
    *(
        warning(
            "ORT-01",
            f"{name} of {kind} in float",
            kind,
            f"{name} '",
            lambda f, name=name, made=made: f.node("Softplus", f.node(name, made(f))),
            "FusedGemm" if (kind, name) == ("Gemm", "Relu") else kind,
            integer,
        )
        for kind, made, integer in (("MatMul", product, "MatMulIntegerToFloat"), ("Gemm", gemm, "QGemm"))
        for name in ("Relu", "Clip")
    ),
    *(
        near(
            "ORT-01",
            f"{name} of {kind} as an output",
            lambda f, name=name, made=made: f.node(name, made(f)),
            integer,
        )
        for kind, made, integer in (("MatMul", product, "MatMulIntegerToFloat"), ("Gemm", gemm, "QGemm"))
        for name in ("Relu", "Clip")
    ),
    near(
        "ORT-01",
        "LeakyRelu of a product in float",
        lambda f: f.node("Softplus", f.node("LeakyRelu", product(f), alpha=0.0)),
        "MatMulIntegerToFloat",
    ),
    near(
        "ORT-01",
        "product with two readers in float",
        lambda f: (lambda y: f.node("Sub", f.node("Softsign", y), f.node("Softplus", y)))(product(f)),
        "MatMulIntegerToFloat",
        "MatMul",
    ),
    warning(
        "ORT-01",
        "rectified behind what is moved",
        "Conv",
        "Relu 'Relu_5' reads its output",
        lambda f: rectified(f, f.node("MaxPool", conv(f), kernel_shape=[2, 2]), zero=0),
        "Conv",
        "QLinearConv",
    ),
    near(
        "ORT-01",
        "rectified behind a Transpose",
        lambda f: rectified(f, f.node("Transpose", conv(f), perm=[0, 1, 3, 2]), zero=0),
        "QLinearConv",
        "Relu",
    ),
    near(
        "ORT-01",
        "moved behind a rectifier",
        lambda f: qdq(f, f.node("Transpose", f.node("Relu", conv(f)), perm=[0, 1, 3, 2]), zero=0),
        "QLinearConv",
        "Relu",
    ),
    near("ORT-01", "convolution", lambda f: qdq(f, conv(f)), "QLinearConv"),
    near("ORT-01", "shared input", shared, "QLinearConv", "Conv"),
    near("ORT-01", "depthwise", lambda f: qdq(f, conv(f, None, weight(f, 8, 1, 3, 3), group=8)), "QLinearConv"),
    near("ORT-01", "residual", lambda f: residual(f, True), "QLinearAdd", "Add"),
    near("ORT-01", "gate", lambda f: silu(f, qdq), "QLinearMul", "Sigmoid"),
    near("ORT-01", "product", product, "MatMulIntegerToFloat"),
    near("ORT-01", "moved", lambda f: qdq(f, f.node("Reshape", conv(f), numbers(f, 8, 36))), "QLinearConv"),
    near(
        "ORT-01",
        "concatenated",
        lambda f: qdq(f, f.node("Concat", image(f), image(f, scale=0.05), axis=1)),
        "QLinearConcat",
    ),
    warning(
        "ORT-02",
        "zero point in the middle",
        "Relu",
        "Conv 'Conv_3' and this Relu are computed in float: it cuts below 0, the quantizer's range is -3.84 … 3.81",
        lambda f: rectified(f, conv(f)),
        "FusedConv",
        "QLinearConv",
    ),
    warning(
        "ORT-02",
        "symmetric INT8",
        "Relu",
        "the quantizer's range is -3.84",
        lambda f: signed(f, f.node("Relu", conv(f, signed(f, f.input(1, 8, 6, 6))))),
        "FusedConv",
        "QLinearConv",
    ),
    warning(
        "ORT-02",
        "range beyond 6",
        "Clip",
        "it cuts to 0 … 6, the quantizer's range is 0 … 25.5",
        lambda f: rectified(f, conv(f), "Clip", scale=0.1, zero=0),
        "FusedConv",
        "QLinearConv",
    ),
    warning(
        "ORT-02",
        "alone",
        "Relu",
        "between DequantizeLinear and",
        lambda f: rectified(f, qdq(f, conv(f))),
        "Relu",
        "Conv",
    ),
    near("ORT-02", "from zero", lambda f: rectified(f, conv(f), zero=0), "QLinearConv", "Relu"),
    near("ORT-02", "up to 6", lambda f: rectified(f, conv(f), "Clip", scale=6 / 255, zero=0), "QLinearConv", "Clip"),
    near(
        "ORT-02",
        "INT8 from -128",
        lambda f: qdq(f, f.node("Relu", conv(f, signed(f, f.input(1, 8, 6, 6)))), zero=-128, dtype=INT8),
        "QLinearConv",
    ),
    warning(
        "ORT-02",
        "behind a Transpose",
        "Relu",
        "Conv 'Conv_3' and this Relu",
        lambda f: rectified(f, f.node("Transpose", conv(f), perm=[0, 1, 3, 2])),
        "Conv",
        "QLinearConv",
    ),
    near("ORT-02", "in float before", lambda f: rectified(f, f.input(1, 8, 6, 6)), "Relu"),
    warning(
        "ORT-03",
        "float addend",
        "Add",
        "computed in float: input 1 is not quantized, its output is",
        lambda f: qdq(f, f.node("Add", image(f), f.input(1, 8, 6, 6))),
        "Add",
        "QLinearAdd",
    ),
    warning(
        "ORT-03",
        "float factor",
        "Mul",
        "input 1 is not",
        lambda f: qdq(f, f.node("Mul", image(f), f.weight(8, 1, 1))),
        "Mul",
        "QLinearMul",
    ),
    warning(
        "ORT-03",
        "float weight of a product",
        "MatMul",
        "input 1 is not",
        lambda f: qdq(f, product(f, w=f.weight(16, 8))),
        "MatMul",
        "QLinearMatMul",
    ),
    warning(
        "ORT-03",
        "float weight of a convolution",
        "Conv",
        "the runtime quantizes it by itself, with one scale",
        lambda f: qdq(f, conv(f, None, f.constant(f.random.standard_normal((8, 8, 3, 3)) * 0.05))),
        "QLinearConv",
    ),
    near("ORT-03", "neither", lambda f: qdq(f, f.node("Add", f.input(2, 8), f.input(2, 8))), "Add"),
    near(
        "ORT-03",
        "constant factor",
        lambda f: qdq(f, f.node("Mul", image(f), f.dequantize(f.constant(np.full((8, 1, 1), 99), UINT8), 0.01, UINT8))),
        "QLinearMul",
    ),
    near("ORT-03", "two activations", lambda f: qdq(f, product(f, w=image(f, 16, 8))), "QLinearMatMul"),
    warning(
        "ORT-04",
        "flattened",
        "Flatten",
        "Gemm 'Gemm_4' is computed in float: no Q/DQ stands behind this Flatten",
        lambda f: flattened(f, False),
        "Gemm",
        "QGemm",
    ),
    warning(
        "ORT-04",
        "other scale behind max pooling",
        "MaxPool",
        "another scale or type than 'DequantizeLinear_1'",
        lambda f: qdq(f, f.node("MaxPool", image(f), kernel_shape=[2, 2]), 0.05),
        "MaxPool",
        "NhwcMaxPool",
    ),
    warning("ORT-04", "other scale behind Resize", "Resize", "another scale", lambda f: resized(f, scale=0.05), Q),
    warning("ORT-04", "other scale behind Split", "Split", "another scale", lambda f: split(f, 0.05), "Split"),
    warning(
        "ORT-04",
        "quantized for one of two readers",
        "MaxPool",
        "moves float: QuantizeLinear is one of 2 readers",
        branches,
        "Sigmoid",
        "QLinearSigmoid",
    ),
    near("ORT-03", "INT32 bias of a product", lambda f: linear(f, bias(f), quantize=True), "QGemm", "Add"),
    near("ORT-04", "two readers", lambda f: branches(f, False), "QLinearSigmoid", "Sigmoid"),
    near("ORT-04", "flattened", lambda f: flattened(f, True), "QGemm", "Gemm"),
    near("ORT-04", "reshaped", lambda f: flattened(f, False, "Reshape"), "QGemm", "Gemm"),
    near("ORT-04", "Resize", resized),
    near("ORT-04", "Split", lambda f: split(f, SCALE)),
    near("ORT-04", "Transpose", lambda f: qdq(f, product(f, x=f.node("Transpose", image(f, 16, 4)))), "QLinearMatMul"),
    warning(
        "ORT-05",
        "float, and a float output",
        "Gemm",
        "its bias is in float, and its output is not quantized (its output is an output of the model)",
        lambda f: gemm(f, weight(f, 8, 16), f.weight(8)),
        "Gemm",
        "QGemm",
    ),
    warning(
        "ORT-05",
        "float bias of a product",
        "MatMul",
        "(Softplus 'Softplus_5' reads its output)",
        lambda f: linear(f, f.weight(8)),
        "Gemm",
        "QGemm",
    ),
    warning(
        "ORT-05",
        "INT8",
        "Conv",
        "its bias is INT8; expected INT32",
        lambda f: qdq(f, conv(f, None, weight(f, 8, 8, 3, 3), weight(f, 8, axis=None))),
        "Conv",
        "QLinearConv",
    ),
    warning(
        "ORT-05",
        "computed",
        "Conv",
        "its bias is computed at run time",
        lambda f: qdq(f, conv(f, None, weight(f, 8, 8, 3, 3), f.input(8))),
        "Conv",
        "QLinearConv",
    ),
    warning(
        "ORT-05",
        "two dimensions",
        "Gemm",
        "its bias has 2 dimensions; expected 1",
        lambda f: qdq(f, gemm(f, weight(f, 8, 16), f.weight(1, 8))),
        "Gemm",
        "QGemm",
    ),
    warning(
        "ORT-05",
        "other scale at a convolution",
        "Conv",
        "its bias has the scale 0.0015, input × weight is 0.00015",
        lambda f: qdq(f, conv(f, None, weight(f, 8, 8, 3, 3), bias(f, factor=10))),
        "Conv",
        "QLinearConv",
    ),
    error(
        "ORT-05",
        "other scale at a Gemm",
        "Gemm",
        "the runtime ignores the scale, so that the output is wrong",
        lambda f: gemm(f, weight(f, 8, 16), bias(f, factor=10)),
        "wrong",
        has="QGemm",
    ),
    *(
        error(
            "ORT-05",
            f"float that INT32 cannot hold, at a {operator}",
            operator,
            "which cannot hold it in 2 of 8 channels, so that the output is wrong",
            build,
            "wrong",
            has=has,
        )
        for operator, build, has in (
            ("Conv", lambda f: qdq(f, conv(f, None, weight(f, 8, 8, 3, 3), large(f))), "QLinearConv"),
            ("Gemm", lambda f: qdq(f, gemm(f, weight(f, 8, 16), large(f))), "QGemm"),
            ("MatMul", lambda f: linear(f, large(f), quantize=True), "QGemm"),
        )
    ),
    error("ORT-05", "other scale at a product", "MatMul", "wrong", lambda f: linear(f, bias(f, factor=10)), "wrong"),
    near("ORT-05", "INT32", lambda f: gemm(f, weight(f, 8, 16), bias(f)), "QGemm"),
    near("ORT-05", "INT32 of a product", lambda f: linear(f, bias(f)), "QGemm"),
    near("ORT-05", "float, and a quantized output", lambda f: linear(f, f.weight(8), quantize=True), "QGemm"),
    near("ORT-05", "two dimensions of a product", lambda f: linear(f, f.weight(1, 8)), "MatMulIntegerToFloat"),
    near("ORT-05", "float at a convolution", lambda f: qdq(f, conv(f, None, weight(f, 8, 8, 3, 3), f.weight(8)))),
    error(
        "ORT-06",
        "convolution",
        "Conv",
        "along axis 1; the output channels are axis 0",
        lambda f: qdq(f, conv(f, None, weight(f, 8, 8, 3, 3, axis=1))),
        "wrong",
        has="QLinearConv",
    ),
    error(
        "ORT-06",
        "convolution of other channels",
        "Conv",
        "or fails when it is run",
        lambda f: qdq(f, conv(f, None, weight(f, 16, 8, 3, 3, axis=1))),
        "fails",
    ),
    error(
        "ORT-06",
        "product",
        "MatMul",
        "along axis 0; the output channels are axis 1",
        lambda f: qdq(f, product(f, w=weight(f, 16, 8, axis=0))),
        "fails",
    ),
    error("ORT-06", "square product", "MatMul", "axis 0", lambda f: product(f, w=weight(f, 16, 16)), "wrong"),
    warning(
        "ORT-06",
        "with a bias",
        "Conv",
        "is computed in float",
        lambda f: qdq(f, conv(f, None, weight(f, 8, 8, 3, 3, axis=1), f.weight(8))),
        "Conv",
        "QLinearConv",
    ),
    near("ORT-06", "convolution", lambda f: qdq(f, conv(f)), "QLinearConv"),
    near(
        "ORT-06",
        "transposed",
        lambda f: qdq(f, product(f, w=f.node("Transpose", weight(f, 8, 16), perm=[1, 0]))),
        "QLinearMatMul",
    ),
    near("ORT-06", "one scale", lambda f: qdq(f, conv(f, None, weight(f, 8, 8, 3, 3, axis=None))), "QLinearConv"),
    error(
        "ORT-07",
        "convolution",
        DQ,
        "has 8 scales; Conv 'Conv_3' takes one, and fails",
        lambda f: activation_scales(f, conv),
        "fails",
    ),
    error(
        "ORT-07",
        "sum",
        DQ,
        "takes one",
        lambda f: activation_scales(f, lambda f, x: f.node("Add", x, image(f))),
        "refused",
    ),
    warning(
        "ORT-07",
        "Gemm",
        DQ,
        "what reads it is computed in float",
        lambda f: activation_scales(f, lambda f, x: gemm(f, x=x), 16, 1, 4, 16),
        "Gemm",
        "QGemm",
    ),
    near("ORT-07", "one in a list", lambda f: qdq(f, conv(f, image(f, scale=[SCALE]))), "QLinearConv"),
    warning(
        "ORT-08",
        "Gemm without zero point",
        DQ,
        "there is no zero point: Gemm 'Gemm_3' is computed in float",
        lambda f: qdq(f, gemm(f, x=f.pair(f.input(4, 16), f.constant(SCALE)))),
        "Gemm",
        "QGemm",
    ),
    warning(
        "ORT-08",
        "moved at a computed scale",
        DQ,
        "'Div_2_0' is computed at run time: Flatten 'Flatten_5' is computed in float",
        lambda f: at_run_time(f, lambda f, x: f.node("Flatten", x)),
        Q,
    ),
    warning(
        "ORT-08",
        "clipped at a computed scale",
        Q,
        "Clip 'Clip_7' is computed in float",
        lambda f: at_run_time(f, lambda f, x: f.node("Clip", product(f, x=x), f.constant(0.0), f.constant(6.0))),
        "Clip",
    ),
    near(
        "ORT-08",
        "ReLU",
        lambda f: at_run_time(f, lambda f, x: f.node("Relu", product(f, x=x))),
        "QLinearMatMul",
        "Relu",
    ),
    near("ORT-08", "Gemm", lambda f: at_run_time(f, lambda f, x: gemm(f, x=x)), "QGemm", "Gemm"),
    near("ORT-08", "product", lambda f: at_run_time(f, lambda f, x: product(f, x=x)), "QLinearMatMul"),
]
