"""For each rule of TensorRT what it has to find and what it must not, and what TensorRT for RTX 1.7 says to it."""

import numpy as np

from support.onnx_files import FLOAT16, FP8, INT4, INT8, INT16, INT32, UINT8
from support.tensorrt_files import (
    E5M2,
    INT64,
    PER_CHANNEL,
    Case,
    attention,
    batch_norm,
    behind,
    bias,
    blocks,
    concat,
    conv,
    fp8_conv,
    fp16_conv,
    grouped,
    image,
    integer_product,
    max_pool,
    normalization,
    product,
    residual,
    runtime_scale,
    settings,
    siblings,
    transposed,
)

Q, DQ = "QuantizeLinear", "DequantizeLinear"


def error(rule, what, operator, message, build, refused=True, **more):
    return Case(rule, what, build, "error", operator, message, refused, **more)


def warning(rule, what, operator, message, build, refused=False, **more):
    return Case(rule, what, build, "warning", operator, message, refused, **more)


def info(rule, what, operator, message, build):
    return Case(rule, what, build, "info", operator, message)


def near(rule, what, build, **more):
    return Case(rule, what, build, **more)


def resized(f, **attributes):
    """Enlarged to 12×12."""
    return f.node("Resize", f.input(1, 3, 8, 8), None, None, f.constant([1, 3, 12, 12], INT64), **attributes)


def weight_dq(f, *shape, scales=None, **attributes):
    return f.dequantize(f.weight(*shape, dtype=INT4), 0.05 if scales is None else scales, INT4, **attributes)


CASES = [
    error("TRT-Q01", "offset", Q, "1 of 1 zero points", lambda f: conv(f, f.pair(image(f), *settings(f, 0.05, 3)))),
    error(
        "TRT-Q01",
        "offsets of a weight",
        Q,
        "7 of 8 zero points are not zero; the first is 1",
        lambda f: conv(f, None, f.pair(f.weight(8, 8, 3, 3), *settings(f, PER_CHANNEL, range(8)), axis=0)),
    ),
    error(
        "TRT-Q01",
        "input as zero point",
        Q,
        "is computed at run time",
        lambda f: conv(f, f.pair(image(f), f.constant(0.05), f.input(dtype=INT8))),
    ),
    warning("TRT-Q01", "no type", Q, "ONNX reads UINT8", lambda f: conv(f, f.pair(image(f), f.constant(0.05)))),
    near("TRT-Q01", "zeros", conv),
    near(
        "TRT-Q01",
        "type as attribute",
        lambda f: f.dequantize(f.node(Q, image(f), f.constant(0.05), output_dtype=3)),
    ),
    *(
        error(
            "TRT-Q02",
            str(scale),
            Q,
            f"scale 1 is {scale:g}",
            lambda f, scale=scale: conv(f, None, f.qdq(f.weight(8, 8, 3, 3), [0.1, scale, *[0.1] * 6], axis=0)),
            refused=not np.isinf(scale),
        )
        for scale in (0.0, -0.05, np.nan, np.inf)
    ),
    error("TRT-Q02", "computed", Q, "is computed at run time", runtime_scale, refused=None),
    near("TRT-Q02", "tiny", lambda f: conv(f, f.qdq(image(f), 1e-30))),
    error(
        "TRT-Q03",
        "wrong axis",
        Q,
        "4 scales for 8 slices along axis 0",
        lambda f: conv(f, None, f.qdq(f.weight(8, 4, 3, 3), PER_CHANNEL[:4], axis=0), group=2),
    ),
    error(
        "TRT-Q03",
        "no such axis",
        Q,
        "axis 5 of a tensor of 4 dimensions",
        lambda f: conv(f, None, f.qdq(f.weight(8, 8, 3, 3), PER_CHANNEL, axis=5)),
    ),
    error(
        "TRT-Q03",
        "matrix",
        Q,
        "the scale has 2 dimensions, its tensor 4",
        lambda f: conv(f, None, f.qdq(f.weight(8, 8, 3, 3), np.full((8, 8), 0.05), axis=0)),
    ),
    error(
        "TRT-Q03",
        "blocks of the first dimension",
        DQ,
        "blocks along axis 0 of 3",
        lambda f: blocks(f, (4, 64, 32), (2, 64, 32), 0, 2),
    ),
    error(
        "TRT-Q03",
        "part of a block",
        DQ,
        "scales of shape (3, 32) for (64, 32) in blocks of 24",
        lambda f: blocks(f, (64, 32), (3, 32), 0, 24),
    ),
    warning("TRT-Q03", "list of one", Q, "one scale in a list", lambda f: conv(f, f.qdq(image(f), [0.05]))),
    near("TRT-Q03", "blocks", lambda f: blocks(f, (64, 32), (4, 32), 0, 16)),
    near("TRT-Q03", "negative axis", lambda f: product(f, f.qdq_weight(64, 8, axis=-1))),
    warning(
        "TRT-Q04",
        "float scales in float16",
        Q,
        "the scale is FLOAT, its tensor FLOAT16",
        lambda f: conv(f, f.pair(image(f, dtype=FLOAT16), *settings(f, 0.05, 0))),
    ),
    warning("TRT-Q04", "old operator set", Q, "since operator set 19", fp16_conv, opset=17, dtype=FLOAT16),
    error(
        "TRT-Q04",
        "two float types in one operator",
        "Conv",
        "FLOAT and FLOAT16; TensorRT converts none",
        lambda f: conv(f, f.pair(image(f), *settings(f, 0.05, 0, FLOAT16))),
    ),
    near("TRT-Q04", "float16", fp16_conv, dtype=FLOAT16),
    warning("TRT-Q05", "per axis", Q, "scales per axis since operator set 13; the file says 12", conv, opset=12),
    warning("TRT-Q05", "FP8", Q, "FP8 since operator set 19; the file says 18, here and at 3 more", fp8_conv, opset=18),
    warning("TRT-Q05", "INT4", DQ, "INT4 since operator set 21", lambda f: product(f, weight_dq(f, 64, 8)), opset=20),
    warning(
        "TRT-Q05",
        "blocks",
        Q,
        "blocks since operator set 21; the file says 20",
        lambda f: product(f, f.qdq(f.weight(64, 8), np.full((4, 8), 0.05), axis=0, block_size=16)),
        opset=20,
    ),
    near("TRT-Q05", "per axis", conv, opset=13),
    near("TRT-Q05", "FP8", fp8_conv, opset=19),
    error("TRT-Q06", "MatMulInteger", "MatMulInteger", "has no MatMulInteger", integer_product),
    near("TRT-Q06", "quantized product", lambda f: product(f, f.qdq_weight(64, 8, axis=1), f.qdq(f.input(2, 64)))),
    error(
        "TRT-Q07",
        "Cast",
        "Cast",
        "Cast reads the INT8 constant 'c0'",
        lambda f: product(f, f.node("Cast", f.weight(64, 32, dtype=INT8), to=1)),
    ),
    error(
        "TRT-Q07",
        "Transpose",
        "Transpose",
        "only DequantizeLinear can",
        lambda f: product(f, f.dequantize(f.node("Transpose", f.weight(8, 64, dtype=INT8), perm=[1, 0]))),
    ),
    near("TRT-Q07", "Transpose behind", lambda f: product(f, f.node("Transpose", f.qdq_weight(8, 64), perm=[1, 0]))),
    near("TRT-Q07", "stored", lambda f: product(f, f.dequantize(f.weight(64, 8, dtype=INT8), PER_CHANNEL, axis=1))),
    error(
        "TRT-Q08",
        "INT32",
        DQ,
        "a bias in INT32 is dequantized for Conv_5",
        lambda f: bias(f, f.dequantize(f.constant(range(8), INT32), PER_CHANNEL, INT32, axis=0)),
    ),
    warning("TRT-Q08", "INT8", "Conv", "its bias is quantized to INT8", lambda f: bias(f, f.qdq(f.weight(8)))),
    near("TRT-Q08", "float", lambda f: bias(f, f.weight(8))),
    warning(
        "TRT-Q09",
        "activation",
        DQ,
        "a computed tensor is quantized to four bits",
        lambda f: product(f, weight_dq(f, 64, 8, scales=PER_CHANNEL, axis=1), f.qdq(f.input(2, 64), 0.05, INT4)),
    ),
    near("TRT-Q09", "weight", lambda f: product(f, weight_dq(f, 64, 8, scales=PER_CHANNEL, axis=1))),
    warning("TRT-Q10", "axis 1", "ConvTranspose", "scales along axis 1", lambda f: transposed(f, 1)),
    warning("TRT-Q10", "groups", "ConvTranspose", "in 2 groups", lambda f: transposed(f, 0, 2)),
    info("TRT-Q10", "axis 0", "ConvTranspose", "computes it in float", lambda f: transposed(f, 0)),
    near("TRT-Q10", "float", lambda f: f.node("ConvTranspose", image(f), f.weight(8, 16, 3, 3))),
    warning("TRT-Q11", "weight only", "Conv", "its input is float", lambda f: conv(f, image(f))),
    warning("TRT-Q11", "input only", "Conv", "input 1 is float", lambda f: conv(f, None, f.weight(8, 8, 3, 3))),
    info("TRT-Q11", "weight of a product", "MatMul", "memory", lambda f: product(f, f.qdq_weight(64, 8, axis=1))),
    error(
        "TRT-Q11",
        "INT8 and FP8",
        "MatMul",
        "quantized to INT8 and FLOAT8E4M3FN",
        lambda f: product(f, f.qdq_weight(64, 8, axis=1, dtype=FP8), f.qdq(f.input(2, 64))),
    ),
    near("TRT-Q11", "four-bit weight", lambda f: product(f, weight_dq(f, 64, 8, scales=PER_CHANNEL, axis=1))),
    near("TRT-Q11", "through max pooling", lambda f: conv(f, f.node("MaxPool", f.qdq(image(f)), kernel_shape=[2, 2]))),
    near("TRT-Q11", "neither", lambda f: conv(f, image(f), f.weight(8, 8, 3, 3))),
    warning("TRT-Q12", "activation", DQ, "has 8 scales", lambda f: conv(f, f.qdq(image(f), PER_CHANNEL, axis=1))),
    warning("TRT-Q12", "convolution", "Conv", "axis 1; the", lambda f: conv(f, None, f.qdq_weight(8, 8, 3, 3, axis=1))),
    warning(
        "TRT-Q12",
        "product",
        "MatMul",
        "along axis 0; the output channels are axis 1",
        lambda f: product(f, f.qdq_weight(64, 32), f.qdq(f.input(2, 64))),
    ),
    warning(
        "TRT-Q12",
        "transposed weight of Gemm",
        "Gemm",
        "along axis 1; the output channels are axis 0",
        lambda f: f.node("Gemm", f.qdq(f.input(2, 64)), f.qdq_weight(32, 64, axis=1), transB=1),
    ),
    near("TRT-Q12", "Gemm", lambda f: f.node("Gemm", f.qdq(f.input(2, 64)), f.qdq_weight(32, 64), transB=1)),
    near("TRT-Q12", "Transpose", lambda f: product(f, f.node("Transpose", f.qdq_weight(8, 64), perm=[1, 0]))),
    near("TRT-Q12", "one", lambda f: conv(f, None, f.qdq(f.weight(8, 8, 3, 3)))),
    near("TRT-Q12", "computed weight", lambda f: conv(f, None, f.qdq(f.input(8, 8, 3, 3), PER_CHANNEL, axis=0))),
    warning("TRT-Q13", "before Sigmoid", DQ, "between Conv 'Conv_4' and Sigmoid", lambda f: behind(f, "Sigmoid")),
    near("TRT-Q13", "behind Sigmoid", lambda f: f.qdq(f.node("Sigmoid", conv(f)))),
    near("TRT-Q13", "before the next convolution", lambda f: conv(f, f.qdq(conv(f)))),
    warning("TRT-Q14", "before ReLU", DQ, "between Conv 'Conv_4' and Relu", lambda f: behind(f, "Relu")),
    warning(
        "TRT-Q14",
        "behind batch norm",
        DQ,
        "between Conv 'Conv_4' and Relu",
        lambda f: f.node("Relu", f.qdq(batch_norm(f, conv(f)))),
    ),
    near("TRT-Q14", "behind ReLU", lambda f: f.qdq(f.node("Relu", batch_norm(f, conv(f))))),
    warning("TRT-Q15", "both", "Add", "also that of Conv", lambda f: residual(f, True)),
    near("TRT-Q15", "residual", lambda f: residual(f, False)),
    warning(
        "TRT-Q16",
        "average pooling",
        "AveragePool",
        "its output is not",
        lambda f: f.node("AveragePool", f.qdq(image(f)), kernel_shape=[2, 2]),
    ),
    warning("TRT-Q16", "max pooling", "MaxPool", "have different scales", lambda f: max_pool(f, 0.1)),
    info("TRT-Q16", "sum", "Add", "the sum is not", lambda f: f.node("Add", f.qdq(image(f)), f.qdq(image(f)))),
    near("TRT-Q16", "both sides", lambda f: f.qdq(f.node("GlobalAveragePool", f.qdq(image(f))))),
    near("TRT-Q16", "max pooling", lambda f: max_pool(f, 0.05)),
    near("TRT-Q16", "residual", lambda f: residual(f, False)),
    warning("TRT-Q17", "two scales", Q, "quantizes 'x0' in another way", lambda f: siblings(f, 0.05, 0.1)),
    near("TRT-Q17", "one scale twice", lambda f: siblings(f, 0.05, 0.05)),
    warning("TRT-Q18", "two scales", "Concat", "its 2 inputs", lambda f: concat(f, 0.05, 0.1)),
    warning("TRT-Q18", "one input", "Concat", "1 of 2 inputs are quantized", lambda f: concat(f, 0.05, None)),
    near("TRT-Q18", "one scale", lambda f: concat(f, 0.05, 0.05)),
    near("TRT-Q18", "none", lambda f: concat(f, None, None)),
    warning(
        "TRT-Q19",
        "Cast",
        "Cast",
        "is converted to FLOAT",
        lambda f: f.node("Relu", f.node("Cast", f.pair(image(f), *settings(f, 0.05, 0, FLOAT16)), to=1)),
    ),
    near("TRT-Q19", "Cast to an output", lambda f: f.node("Cast", f.qdq(image(f)), to=10), dtype=FLOAT16),
    near("TRT-Q19", "Cast before", lambda f: conv(f, f.qdq(f.node("Cast", image(f, dtype=FLOAT16), to=1)))),
    warning("TRT-Q20", "late factor", "Mul", "scales the product", lambda f: attention(f, late=True)),
    warning("TRT-Q20", "softmax", Q, "at 0.00700; expected 1/127", lambda f: attention(f, scale=0.007)),
    warning("TRT-Q20", "FP8", Q, "expected 1/448", lambda f: attention(f, dtype=FP8)),
    info("TRT-Q20", "spread", Q, "at 0.00024, for values up to 0.031", lambda f: attention(f, scale=0.031 / 127)),
    near("TRT-Q20", "INT8", attention),
    near("TRT-Q20", "FP8", lambda f: attention(f, scale=1 / 448, dtype=FP8)),
    warning(
        "TRT-Q21",
        "quantized",
        "LayerNormalization",
        "input 0 is quantized",
        lambda f: f.node("LayerNormalization", f.qdq(f.input(2, 64)), f.weight(64)),
    ),
    warning("TRT-Q21", "in parts", "Div", "in several nodes", normalization),
    near("TRT-Q21", "float", lambda f: f.qdq(f.node("LayerNormalization", f.input(2, 64), f.weight(64)))),
    warning("TRT-Q22", "three channels", "Conv", "2 groups from 3 to 3", lambda f: grouped(f, 6, 2)),
    near("TRT-Q22", "four channels", lambda f: grouped(f, 8, 2)),
    near("TRT-Q22", "depthwise", lambda f: grouped(f, 6, 6)),
    info("TRT-Q23", "depthwise", "Conv", "over 8 channels", lambda f: grouped(f, 8, 8)),
    near("TRT-Q23", "groups", lambda f: grouped(f, 8, 2)),
    warning("TRT-Q24", "groups", "Conv", "in 2 groups", lambda f: grouped(f, 32, 2, FP8)),
    warning("TRT-Q24", "stem", "Conv", "over 3 input channels", lambda f: fp8_conv(f, 3)),
    near("TRT-Q24", "16 channels", fp8_conv),
    error("TRT-Q25", "INT16", Q, "INT16, which", lambda f: conv(f, f.qdq(image(f), dtype=INT16))),
    error("TRT-Q25", "E5M2", Q, "FLOAT8E5M2, which", lambda f: conv(f, f.qdq(image(f), dtype=E5M2))),
    error("TRT-Q25", "UINT8", Q, "reads it as INT8", lambda f: conv(f, f.qdq(image(f), dtype=UINT8)), refused=False),
    error(
        "TRT-Q25",
        "stored UINT8",
        DQ,
        "refuses it if it is stored",
        lambda f: product(f, f.dequantize(f.constant(np.ones((64, 8)), UINT8), dtype=UINT8)),
    ),
    near("TRT-Q25", "FP8", fp8_conv),
    error("TRT-O01", "Unique", "Unique", "does not take Unique: ", lambda f: f.node("Unique", f.input(8))),
    error(
        "TRT-O01",
        "ONNX Runtime's",
        "com.microsoft::FastGelu",
        "has no FastGelu of ONNX Runtime",
        lambda f: f.node("FastGelu", f.input(2, 8), domain="com.microsoft"),
    ),
    near("TRT-O01", "ONNX Runtime's", lambda f: f.node("Gelu", f.input(2, 8), domain="com.microsoft")),
    error(
        "TRT-O01",
        "a plugin that is not there",
        "NonZero",
        "TensorRT for RTX 1.7.1.116 does not take NonZero: ",
        lambda f: f.node("Cast", f.node("NonZero", f.input(8)), to=1),
    ),
    near("TRT-O01", "TopK", lambda f: f.node("TopK", f.input(8), f.constant([2], INT64), outputs=2)[0]),
    error("TRT-O02", "INT16", "Cast", "'x0' of type INT16", lambda f: f.node("Cast", f.input(2, dtype=INT16), to=1)),
    error(
        "TRT-O02",
        "UINT8",
        "Transpose",
        "only Cast can",
        lambda f: f.node("Cast", f.node("Transpose", f.input(1, 4, dtype=UINT8)), to=1),
    ),
    near("TRT-O02", "UINT8 input", lambda f: f.node("Cast", f.input(1, 4, dtype=UINT8), to=1)),
    near("TRT-O02", "INT64", lambda f: f.node("Cast", f.input(1, 4, dtype=INT64), to=1)),
    error("TRT-O03", "antialias", "Resize", "antialias=1 of Resize: ", lambda f: resized(f, mode="cubic", antialias=1)),
    error(
        "TRT-O03",
        "crop",
        "Resize",
        "coordinate_transformation_mode=half_pixel_symmetric of Resize: ",
        lambda f: resized(f, mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
    ),
    error(
        "TRT-O03",
        "dilated pooling",
        "MaxPool",
        "dilations=[2, 2] of MaxPool: ",
        lambda f: f.node("MaxPool", f.input(1, 3, 8, 8), kernel_shape=[2, 2], dilations=[2, 2]),
    ),
    error(
        "TRT-O03",
        "indices",
        "MaxPool",
        "output 2 of MaxPool: ",
        lambda f: f.node("MaxPool", f.input(1, 3, 8, 8), kernel_shape=[2, 2], outputs=2)[0],
    ),
    error(
        "TRT-O03",
        "integers",
        "Gemm",
        "Gemm of INT32: ",
        lambda f: f.node("Cast", f.node("Gemm", f.input(2, 4, dtype=INT32), f.input(4, 4, dtype=INT32)), to=1),
    ),
    near("TRT-O03", "defaults", lambda f: resized(f, mode="cubic", antialias=0, cubic_coeff_a=-0.75)),
    near(
        "TRT-O03",
        "dilations of one",
        lambda f: f.node("MaxPool", f.input(1, 3, 8, 8), kernel_shape=[2, 2], dilations=[1, 1]),
    ),
    error(
        "TRT-O04",
        "larger than its map",
        "AveragePool",
        "a window of 250×400 = 100,000 places",
        lambda f: f.node("AveragePool", image(f), kernel_shape=[250, 400], strides=[250, 400], ceil_mode=1),
    ),
    error(
        "TRT-O04",
        "of one dimension",
        "Conv",
        "a window of 100000 = 100,000 places",
        lambda f: f.node("Conv", f.input(1, 1, 100_001), f.constant(np.zeros((1, 1, 100_000), np.float32))),
    ),
    near(
        "TRT-O04",
        "one place less",
        lambda f: f.node("AveragePool", image(f), kernel_shape=[99_999, 1], strides=[99_999, 1], ceil_mode=1),
    ),
    near(
        "TRT-O04",
        "three dimensions",
        lambda f: f.node("MaxPool", f.input(1, 1, 9, 9, 9), kernel_shape=[50] * 3, strides=[50] * 3, ceil_mode=1),
    ),
]
PLANTED = [case for case in CASES if case.severity]
NEAR_MISSES = [case for case in CASES if not case.severity]
#: What the compiler is asked about: all that it refuses, and the first of each rule that it takes.
ASKED = [
    *(case for case in PLANTED if case.refused),
    *{case.rule: case for case in reversed(PLANTED) if case.refused is False}.values(),
]
#: What the rules say is computed in float, and what is nearly the same and is not.
IN_FLOAT = [
    *(case for case in PLANTED if case.rule in ("TRT-Q11", "TRT-Q12") and case.severity != "error"),
    *(case for case in PLANTED if (case.rule, case.what) in {("TRT-Q03", "list of one"), ("TRT-Q10", "axis 0")}),
]
IN_EIGHT_BITS = [
    *(case for case in NEAR_MISSES if (case.rule, case.what) == ("TRT-Q11", "through max pooling")),
    *(case for case in NEAR_MISSES if case.rule == "TRT-Q12" and case.what != "Transpose"),
]
