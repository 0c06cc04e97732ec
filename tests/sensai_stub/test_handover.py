"""The hand-over says enough: integers that are multiplied, added and shifted as it says give what the file gives."""

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx_ir.passes.common import ShapeInferencePass
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.artifact import array, read_onnx
from embedl_deploy.quantize import quantize
from embedl_deploy_sensai_stub.handover import hand_over
from embedl_deploy_sensai_stub.quantization import SENSAI_QUANT_CONFIG
from support.nets import net, random_input
from support.onnx_files import OnnxFile

X = random_input(2, 3, 8, 8)


def network():
    def forward(m, x):
        x = m.stem(x)
        x = m.pool(torch.relu(m.depthwise(x) + x))
        return m.fc(torch.relu(m.bn(x)).mean((2, 3)))

    return net(
        forward,
        stem=nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()),
        depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        pool=nn.MaxPool2d(2),
        bn=nn.Sequential(nn.AvgPool2d(2, 1), nn.BatchNorm2d(8)),
        fc=nn.Linear(8, 5),
    )


@pytest.fixture(scope="module", params=[False, True], ids=["float weights", "integer weights"])
def file(request, tmp_path_factory):
    result = transform(network(), (X,), backend="sensai")
    path = tmp_path_factory.mktemp("handover") / "net.onnx"
    quantized = quantize(result, [X], SENSAI_QUANT_CONFIG, progress=False)
    export_onnx(quantized, X, path, integer_weights=request.param, tolerance=None)
    return path


@pytest.fixture
def told(file):
    return hand_over(read_onnx(file))


def stored(values, bits):
    """The integers of eight bits that stand for numbers."""
    return (values.double() * 2.0**bits).round().clamp(-128, 127)


def in_integers(told, constants, x):
    """Run a hand-over on integers, the way its documentation says; the outputs as numbers."""
    numbers = {tensor.name: stored(x, tensor.fractional_bits) for tensor in told.inputs}
    for layer in told.layers:
        read = [numbers[tensor.name] for tensor in layer.inputs]
        bits = layer.accumulator_fractional_bits
        if layer.weight is not None:
            weight = constants[layer.weight.name]
            if weight.is_floating_point():
                weight = stored(weight, layer.weight.fractional_bits)
            bias = None if layer.bias is None else (constants[layer.bias.name].double() * 2.0**bits).round()
        if layer.kind in ("convolution", "depthwise convolution"):
            top, left, bottom, right = layer.attributes["pads"]
            padded, strides = F.pad(read[0], (left, right, top, bottom)), layer.attributes["strides"]
            total = F.conv2d(padded, weight.double(), bias, strides, groups=layer.attributes["group"])
        elif layer.kind == "linear":
            assert layer.attributes["transB"] == 1
            total = F.linear(read[0], weight.double(), bias)
        elif layer.kind == "sum":
            bits = max(tensor.fractional_bits for tensor in layer.inputs)
            total = sum(r * 2.0 ** (bits - t.fractional_bits) for r, t in zip(read, layer.inputs, strict=True))
        elif layer.kind == "global average pooling":
            bits, total = layer.inputs[0].fractional_bits, read[0].sum((2, 3), keepdim=True) / layer.pixels
        else:
            assert layer.kind in ("max pooling", "reshape")
            total = F.max_pool2d(read[0], 2) if layer.kind == "max pooling" else read[0].reshape(layer.output.shape)
            bits = layer.inputs[0].fractional_bits
        total = total.relu() if layer.relu else total
        if layer.output.fractional_bits is None:
            numbers[layer.output.name] = total * 2.0**-bits
        else:
            assert layer.shift in (None, bits - layer.output.fractional_bits)
            numbers[layer.output.name] = stored(total * 2.0**-bits, layer.output.fractional_bits)
    return [numbers[tensor.name] for tensor in told.outputs]


def test_integers_give_what_the_file_gives(file, told):
    model = read_onnx(file)
    constants = {name: torch.from_numpy(np.array(array(value))) for name, value in model.graph.initializers.items()}
    (got,) = in_integers(told, constants, X)
    (wanted,) = onnxruntime.InferenceSession(file).run(None, {model.graph.inputs[0].name: X.numpy()})
    # Biases are rounded to the accumulator's grid, which the file does not do, and a sum may then be rounded the other
    # way. One step of the last layer's input is the most that this makes of a number.
    step = 2.0 ** -told.layers[-1].inputs[0].fractional_bits
    assert np.abs(got.numpy() - wanted).max() <= step
    assert np.abs(wanted).max() > 20 * step


def test_layers_in_order_with_modules(told):
    assert [(layer.kind, layer.module, layer.relu) for layer in told.layers] == [
        ("convolution", "stem.0", True),
        ("depthwise convolution", "depthwise", False),
        ("sum", "relu", True),
        ("max pooling", "pool.pool", False),
        ("depthwise convolution", "bn.0", True),
        ("global average pooling", "mean.pool", False),
        ("reshape", "mean_1", False),
        ("linear", "fc", False),
    ]


def test_every_tensor_is_made_before_it_is_read(told):
    known = {tensor.name for tensor in told.inputs}
    for layer in told.layers:
        assert {tensor.name for tensor in layer.inputs} <= known
        known.add(layer.output.name)
    assert {tensor.name for tensor in told.outputs} <= known


def test_max_pooling_has_the_bits_of_its_reader_on_both_sides(told):
    pool = next(layer for layer in told.layers if layer.kind == "max pooling")
    assert pool.inputs[0].fractional_bits == pool.output.fractional_bits == told.layers[4].inputs[0].fractional_bits


def test_what_is_outside_is_said(told):
    first, reshaped, last = told.outside
    assert first == f"Round the input x to eight bits, {told.inputs[0].fractional_bits} of them fractional."
    assert reshaped.endswith("the same numbers, in the order (N, C, H, W).")
    assert last == f"Say how to store the output {told.outputs[0].name}: the file has no scale for it."
    assert told.to_dict()["outside"] == list(told.outside)


def described(file, *outputs):
    return hand_over(ShapeInferencePass()(file.model(*outputs)).model)


@pytest.mark.parametrize(("scale", "bits"), [(0.0625, 4), (1.0, 0), (4.0, -2), (2.0**-12, 12)])
def test_fractional_bits_of_a_scale(scale, bits):
    file = OnnxFile()
    y = file.node("MaxPool", file.qdq(file.input("n", 4, 6, 6), scale), kernel_shape=[2, 2], strides=[2, 2])
    (layer,) = described(file, file.qdq(y, scale)).layers
    assert (layer.inputs[0].name, layer.inputs[0].shape) == ("x0", (None, 4, 6, 6))
    assert (layer.inputs[0].fractional_bits, layer.output.fractional_bits) == (bits, bits)


def test_readers_that_do_not_agree_leave_the_bits_open():
    file = OnnxFile()
    x = file.input(1, 4, 6, 6)
    told = described(file, file.qdq(x, 0.5), file.qdq(x, 0.25))
    assert told.inputs[0].fractional_bits is None
    assert told.outside[0] == "Say how to store the input x0: the file does not have a single scale for it."
    assert told.outside[1:] == (
        "Read the output x0 with 1 fractional bits.",
        "Read the output x0 with 2 fractional bits.",
    )


def test_a_product_with_a_bias_behind_it():
    file = OnnxFile()
    product = file.node("MatMul", file.qdq(file.input(1, 4), 0.5), file.qdq(file.weight(4, 5), 0.25))
    (layer,) = described(file, file.qdq(file.node("Add", product, file.weight(5)), 0.5)).layers
    assert (layer.kind, layer.bias.shape, layer.bias.fractional_bits, layer.shift) == ("linear", (5,), 3, 2)
