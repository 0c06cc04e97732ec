"""Which kernels the runtime makes of quantized files, and the reasons where it makes none."""

import numpy as np
import onnx_ir as ir
import pytest

from embedl_deploy import compile  # noqa: A004
from embedl_deploy.engine import LayerKind
from embedl_deploy_onnxruntime.compiler.processor import processor_here
from support.onnx_files import FLOAT, INT8, INT16, INT32, UINT8, OnnxFile

SCALE, W_SCALE = 0.05, 0.01
on_x86 = pytest.mark.skipif(not processor_here().startswith("x86"), reason="Arm has kernels for INT8 activations")


def bias(f, *, quantized=True, channels=8):
    """INT32 in the scale of input times weight, or in float."""
    if not quantized:
        return f.weight(channels)
    stored = f.constant(np.arange(channels), INT32)
    return f.node("DequantizeLinear", stored, f.constant(np.full(channels, SCALE * W_SCALE)), axis=0)


def weight(f, *shape, axis=0):
    """INT8, a scale per channel."""
    count = shape[axis]
    stored = f.weight(*shape, dtype=INT8)
    scales = [f.constant(np.full(count, W_SCALE)), f.constant(np.zeros(count), INT8)]
    return f.node("DequantizeLinear", stored, *scales, axis=axis)


def convolution(f, x, *, quantized_bias=True):
    return f.conv(x, weight(f, 8, 8, 3, 3), bias(f, quantized=quantized_bias))


def built(tmp_path, f, *outputs):
    ir.save(f.model(*outputs), tmp_path / "net.onnx")
    return compile(tmp_path / "net.onnx", backend="onnxruntime", threads=1).report


def weighted(report):
    return [layer for layer in report.layers if layer.kind.is_weighted]


def test_a_node_between_its_quantizers_is_one_kernel(tmp_path):
    f = OnnxFile()
    x = f.qdq(f.input(1, 8, 6, 6), SCALE, UINT8)
    y = f.qdq(f.node("Relu", convolution(f, x)), SCALE, UINT8)
    z = f.qdq(f.node("Add", y, x), SCALE, UINT8)
    report = built(tmp_path, f, z)
    (layer,) = weighted(report)
    assert (layer.type, layer.kind, layer.precision) == ("QLinearConv", LayerKind.CONVOLUTION, "uint8")
    # with its ReLU, the quantizers around it and those of weight and bias
    assert {name.partition("_")[0] for name in layer.onnx_nodes} == {
        "DequantizeLinear",
        "Conv",
        "Relu",
        "QuantizeLinear",
    }
    assert [tensor.dtype for tensor in layer.constants if tensor.shape == (8, 8, 3, 3)] == ["int8"]
    assert "QLinearAdd" in {each.type for each in report.layers}
    assert report.float_layers == ()
    assert [layer.dtype for layer in layer.outputs] == ["uint8"]


def test_products(tmp_path):
    f = OnnxFile()
    x = f.qdq(f.input(4, 8), SCALE, UINT8)
    gemm = f.node("Gemm", x, weight(f, 6, 8), bias(f, channels=6), transB=1)
    product = f.node("MatMul", f.qdq(gemm, SCALE, UINT8), weight(f, 6, 5, axis=1))
    last = f.node("Gemm", x, weight(f, 6, 8), bias(f, channels=6), transB=1)
    float_bias = f.node("Gemm", x, weight(f, 6, 8), bias(f, quantized=False, channels=6), transB=1)
    report = built(tmp_path, f, product, last, f.qdq(float_bias, SCALE, UINT8))
    kinds = sorted((layer.type, layer.precision, layer.outputs[0].dtype) for layer in weighted(report))
    assert kinds == [
        ("MatMulIntegerToFloat", "uint8", "float32"),
        ("QGemm", "uint8", "float32"),
        ("QGemm", "uint8", "uint8"),
        ("QGemm", "uint8", "uint8"),
    ]
    assert report.float_layers == ()


def test_a_product_that_quantizes_its_input_computes_in_integers(tmp_path):
    f = OnnxFile()
    x = f.input(4, 8)
    rounded, scale, zero = f.node("DynamicQuantizeLinear", x, outputs=3)
    stored, w_scale, w_zero = f.weight(8, 5, dtype=INT8), f.constant(W_SCALE), f.constant(0, INT8)
    multiplied = f.node("MatMulInteger", rounded, stored, zero, w_zero)
    for value, shape, dtype in ((rounded, [4, 8], UINT8), (multiplied, [4, 5], INT32)):
        value.shape, value.type = ir.Shape(shape), ir.TensorType(dtype)
    product = f.node("Cast", multiplied, to=int(FLOAT))
    report = built(tmp_path, f, f.node("Mul", product, f.node("Mul", scale, w_scale)))
    (layer,) = weighted(report)
    assert (layer.type, layer.precision) == ("DynamicQuantizeMatMul", "uint8")
    assert [tensor.dtype for tensor in layer.inputs] == ["float32"]
    assert len(layer.onnx_nodes) == 5
    assert layer.operations == 2 * 4 * 5 * 8


@pytest.mark.parametrize(
    ("level", "said"), [({}, ""), ({"accuracy_level": 4}, ", and rounded to 8 bits in blocks by the kernel")], ids=str
)
def test_weights_of_four_bits_are_multiplied_in_float_as_meant(level, said, tmp_path):
    f = OnnxFile(com_microsoft=1)
    x = f.qdq(f.input(4, 32), SCALE, UINT8)
    packed, scales = f.constant(np.full((8, 1, 16), 0x37), UINT8), f.constant(np.full(8, W_SCALE))
    how = {"K": 32, "N": 8, "bits": 4, "block_size": 32, **level}
    report = built(tmp_path, f, f.node("MatMulNBits", x, packed, scales, domain="com.microsoft", **how))
    (entry,) = report.float_layers
    assert entry.reason == f"the compiler: weight-only: the weight has 4 bits, the input is in float{said}, as meant"


def read_in_float(f):
    x = f.qdq(f.input(1, 8, 6, 6), SCALE, UINT8)
    y = convolution(f, x)
    return f.qdq(y, SCALE, UINT8), f.node("Sigmoid", y)


def not_quantized(f):
    x = f.qdq(f.input(1, 8, 6, 6), SCALE, UINT8)
    return (convolution(f, x),)


def float_bias(f):
    x = f.qdq(f.input(4, 8), SCALE, UINT8)
    return (f.node("Gemm", x, weight(f, 6, 8), bias(f, quantized=False, channels=6), transB=1),)


def activation(f):
    x = f.qdq(f.input(1, 8, 6, 6), SCALE, UINT8)
    return (f.qdq(f.node("LeakyRelu", convolution(f, x), alpha=0.1), SCALE, UINT8),)


def signed(f):
    x = f.qdq(f.input(1, 8, 6, 6), SCALE, INT8)
    return f.qdq(convolution(f, x), SCALE, INT8), f.node("Neg", x)


def transposed(f):
    x = f.qdq(f.input(1, 8, 6, 6), SCALE, UINT8)
    return (f.qdq(f.node("ConvTranspose", x, weight(f, 8, 8, 3, 3)), SCALE, UINT8),)


def sixteen_bits(f):
    x = f.qdq(f.input(1, 8, 6, 6), SCALE, INT16)
    return (f.qdq(convolution(f, x), SCALE, INT16),)


REASONS = {
    read_in_float: "its result is read in float, by Sigmoid",
    not_quantized: "its result is an output of the network, in float",
    float_bias: "its bias is in float, and so is its result: one of them has to be quantized",
    activation: "LeakyRelu stands between it and QuantizeLinear, and is applied in float",
    transposed: "it has no integer kernel for transposed convolutions",
    sixteen_bits: "it has no kernel for INT16 times INT8",
}


@pytest.mark.parametrize("make", REASONS, ids=lambda make: make.__name__)
def test_why_a_layer_stays_in_float(tmp_path, make):
    f = OnnxFile()
    report = built(tmp_path, f, *make(f))
    (layer,) = weighted(report)
    assert layer.precision == "float32"
    (entry,) = report.float_layers
    assert entry.reason == f"the compiler: {REASONS[make]}"


@on_x86
def test_signed_activations_on_x86(tmp_path):
    f = OnnxFile()
    report = built(tmp_path, f, *signed(f))
    (entry,) = report.float_layers
    assert entry.reason == (
        "the compiler: its input is INT8, which is not made UINT8, as its kernels on x86 need it, where several nodes "
        "read it"
    )
    f = OnnxFile()
    alone = f.qdq(f.input(1, 8, 6, 6), SCALE, INT8)
    (layer,) = weighted(built(tmp_path, f, f.qdq(convolution(f, alone), SCALE, INT8)))
    assert (layer.type, layer.precision) == ("QLinearConv", "uint8")  # made UINT8 by the runtime
