"""Quantized models as ONNX files: what QuantizeLinear and DequantizeLinear say, and that the file computes the same."""

import copy
import functools

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.export import onnx as onnx_export
from embedl_deploy.export import run_onnx
from embedl_deploy.modules import FusedModule, WeightFakeQuantize
from embedl_deploy.patterns import Pattern, QDQPoint
from embedl_deploy.quantize import Precision, QuantConfig, Quantizer, TensorQuantConfig, freeze, quantize
from support.nets import net, random_input
from support.quantizable import (
    IMAGES,
    ROWS,
    OnnxGraph,
    fused,
    inserted,
    perceptron,
    residual_block,
    same_state,
    scales_of,
    state_of,
)

FP8 = TensorQuantConfig(Precision.FP8)
CONFIGS = {
    "int8": QuantConfig(),
    "fp8": QuantConfig(FP8, TensorQuantConfig(Precision.FP8, per_channel=True)),
    "int16": QuantConfig(TensorQuantConfig(Precision.INT16), TensorQuantConfig(Precision.INT16, per_channel=True)),
    "int4": QuantConfig(None, TensorQuantConfig(n_bits=4, block_size=4)),
    "asymmetric": QuantConfig(TensorQuantConfig(symmetric=False), TensorQuantConfig(symmetric=False)),
    "power of two": QuantConfig(TensorQuantConfig(power_of_two=True), TensorQuantConfig(power_of_two=True)),
    "learned": QuantConfig(TensorQuantConfig(learnable=True), TensorQuantConfig(per_channel=True, learnable=True)),
}
OPSETS = {"int8": 18, "fp8": 19, "int16": 21, "int4": 21, "asymmetric": 18, "power of two": 18, "learned": 18}
TYPES = {"fp8": "FLOAT8E4M3FN", "int16": "INT16", "int4": "INT4"}


@functools.cache
def quantized(name):
    return quantize(fused(perceptron()), [ROWS], CONFIGS[name])


def steps(got, wanted):
    """The difference in eight-bit steps of the wanted tensor's range."""
    return float((got.float() - wanted).abs().max() / (wanted.abs().max() / 127))


@pytest.mark.parametrize(
    ("name", "integers"),
    [
        ("int8", False),
        ("int8", True),
        ("fp8", False),
        ("fp8", True),
        ("int4", False),
        ("int4", True),
        ("int16", True),
        ("asymmetric", False),
        ("power of two", False),
        ("learned", True),
    ],
)
def test_every_format_agrees_and_keeps_the_rules(name, integers, tmp_path):
    model = quantized(name)
    wanted, before, training = model(ROWS).detach(), state_of(model), model.training
    written = export_onnx(model, ROWS, tmp_path / "m.onnx", integer_weights=integers)
    graph = OnnxGraph(written.path)
    assert written.opset == graph.opset == OPSETS[name]
    graph.check_quantizers(zero=name != "asymmetric")
    assert written.difference.max_abs <= 1e-5
    torch.testing.assert_close(run_onnx(written.path, ROWS)[0], wanted, rtol=0, atol=1e-5)
    assert {graph.type_of(n.input[2]) for n in graph.of("DequantizeLinear")} == {TYPES.get(name, "INT8")}
    activations = 0 if name == "int4" else 2
    assert len(graph.of("DequantizeLinear")) == activations + 2
    assert len(graph.of("QuantizeLinear")) == activations + (0 if integers else 2)
    assert same_state(before, state_of(model)) and model.training is training
    in_file = sorted(graph.constants[n.input[1]].flatten().tolist() for n in graph.of("DequantizeLinear"))
    assert in_file == sorted(scale.flatten().tolist() for scale in scales_of(model).values())
    if name == "power of two":
        assert all(np.log2(value) % 1 == 0 for scales in in_file for value in scales)
    if name == "asymmetric":
        points = {int(graph.constants[n.input[2]]) for n in graph.of("QuantizeLinear")}
        assert points == {int(part.zero_point) for part in model.modules() if isinstance(part, Quantizer)}
        assert -128 in points, "what comes out of a ReLU"


@pytest.mark.parametrize("name", CONFIGS)
def test_an_operator_set_without_the_format_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=f"opset is {OPSETS[name] - 1}; .* needs {OPSETS[name]} or more"):
        export_onnx(quantized(name), ROWS, tmp_path / "m.onnx", opset=OPSETS[name] - 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "integers"), [("int8", True), ("fp8", False), ("fp8", True)])
def test_half_precision(name, integers, tmp_path):
    model = quantized(name)
    path = export_onnx(model, ROWS, tmp_path / "m.onnx", dtype=torch.float16, integer_weights=integers).path
    graph = OnnxGraph(path)
    graph.check_quantizers()
    assert graph.opset == 19
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        assert graph.type_of(node.input[1]) == "FLOAT16"
    floats = {kind for kind in map(graph.type_of, graph.initializers) if kind in ("FLOAT", "FLOAT16", "DOUBLE")}
    assert floats == {"FLOAT16"}
    assert not graph.of("Cast")
    assert steps(run_onnx(path, ROWS.half())[0], model(ROWS).detach()) <= (2 if name == "int8" else 8)


def quantized_in(dtype):
    return quantize(fused(perceptron().to(dtype)), [ROWS.to(dtype)])


@pytest.mark.parametrize("integers", [False, True])
def test_a_model_that_is_in_float16(integers, tmp_path):
    model = quantized_in(torch.float16)
    written = export_onnx(model, ROWS.half(), tmp_path / "m.onnx", integer_weights=integers)
    graph = OnnxGraph(written.path)
    graph.check_quantizers()
    assert written.opset == 19
    assert {graph.type_of(n.input[1]) for n in graph.of("DequantizeLinear")} == {"FLOAT16"}
    with pytest.raises(InputError, match="opset is 18; scales in float16 needs 19 or more"):
        export_onnx(model, ROWS.half(), tmp_path / "n.onnx", opset=18)


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16(native, tmp_path):
    x, dtype = (ROWS.bfloat16(), None) if native else (ROWS, torch.bfloat16)
    model = quantized_in(x.dtype)
    written = export_onnx(model, x, tmp_path / "m.onnx", dtype=dtype)
    graph = OnnxGraph(written.path)
    assert written.opset == 22
    assert {graph.type_of(n.input[1]) for n in graph.of("DequantizeLinear")} == {"BFLOAT16"}
    with pytest.raises(InputError, match="opset is 18; scales in bfloat16 needs 19 or more"):
        export_onnx(model, x, tmp_path / "n.onnx", dtype=dtype, opset=18)


def test_float64_is_refused_and_converted_on_demand(tmp_path):
    model = quantized_in(torch.float64)
    with pytest.raises(InputError, match=r"parameters in float64, .* Pass dtype=torch.float32"):
        export_onnx(model, ROWS.double(), tmp_path / "m.onnx")
    assert export_onnx(model, ROWS.double(), tmp_path / "m.onnx", dtype=torch.float32).opset == 18


@pytest.mark.parametrize("native", [True, False])
def test_scales_that_float16_does_not_have_are_raised_to_normal_ones(native, tmp_path):
    rows, dtype = (ROWS.half() * 1e-4, None) if native else (ROWS * 1e-4, torch.float16)
    model = quantize(fused(perceptron().to(rows.dtype)), [rows])
    path = export_onnx(model, rows, tmp_path / "m.onnx", dtype=dtype, tolerance=None).path
    graph = OnnxGraph(path)
    smallest = min(float(graph.constants[n.input[1]].min()) for n in graph.of("DequantizeLinear"))
    assert smallest == float(np.finfo(np.float16).tiny) > float(min(s.min() for s in scales_of(model).values()))


class TestConvolutions:
    model = staticmethod(functools.cache(lambda: quantize(fused(residual_block()), [IMAGES])))

    @pytest.mark.parametrize("integers", [False, True], ids=["float weights", "integer weights"])
    def test_have_their_weights_per_output_channel_and_both_inputs_quantized(self, integers, tmp_path):
        model = copy.deepcopy(self.model()).train()  # evaluation mode is exported all the same
        path = export_onnx(model, IMAGES, tmp_path / "m.onnx", integer_weights=integers).path
        assert model.training
        graph = OnnxGraph(path)
        graph.check_quantizers()
        assert len(graph.of("Conv")) == 3 and not graph.of("BatchNormalization")
        for node in graph.of("Conv", "Gemm"):
            x, weight = graph.dequantized(node, 0), graph.dequantized(node, 1)
            assert not graph.is_constant(x) and graph.constants[x.input[1]].shape == ()
            assert graph.is_constant(weight) and graph.attribute(weight, "axis") == 0
            assert graph.constants[weight.input[1]].ndim == 1
        (add,) = graph.of("Add")
        quantized_inputs = [graph.dequantized(add, index) for index in (0, 1)]
        assert [node is None for node in quantized_inputs].count(True) == 1, "the residual alone is quantized"
        torch.testing.assert_close(run_onnx(path, IMAGES)[0], self.model()(IMAGES).detach(), rtol=0, atol=1e-4)

    def test_any_batch_of_a_frozen_model(self, tmp_path):
        path = export_onnx(freeze(self.model()), IMAGES[:1], tmp_path / "m.onnx", dynamic_batch=True).path
        for batch in (1, 2, 4):
            got = run_onnx(path, IMAGES[:batch])[0]
            torch.testing.assert_close(got, self.model()(IMAGES[:batch]).detach(), rtol=0, atol=1e-4)


class FusedUp(FusedModule):
    inputs_to_quantize = frozenset({0})

    def __init__(self, conv):
        super().__init__()
        self.conv, self.weight_fake_quant = conv, WeightFakeQuantize()

    def forward(self, x):
        return F.conv_transpose2d(x, self.weight_fake_quant(self.conv.weight), self.conv.bias, self.conv.stride)


class UpPattern(Pattern):
    tree = (nn.ConvTranspose2d,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedUp


def test_transposed_convolutions_have_their_output_channels_at_axis_1(tmp_path):
    original = net(lambda self, x: self.up(x), up=nn.ConvTranspose2d(3, 5, 2, stride=2))
    model = quantize(transform(original, patterns=[UpPattern()]), [IMAGES])
    path = export_onnx(model, IMAGES, tmp_path / "m.onnx", integer_weights=True).path
    graph = OnnxGraph(path)
    graph.check_quantizers()
    (node,) = graph.of("ConvTranspose")
    weight = graph.dequantized(node, 1)
    assert graph.attribute(weight, "axis") == 1 and graph.constants[weight.input[1]].shape == (5,)
    assert steps(run_onnx(path, IMAGES)[0], original(IMAGES).detach()) < 2
    torch.testing.assert_close(run_onnx(path, IMAGES)[0], model(IMAGES).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bias", "shape"), [(True, (2, 3, 12)), (False, (6, 12))])
def test_weights_of_matrix_products_have_a_scale_for_each_output(bias, shape, tmp_path):
    model = quantize(fused(net(lambda self, x: self.fc(x), fc=nn.Linear(12, 5, bias=bias))), [ROWS])
    x = random_input(*shape)
    path = export_onnx(model, x, tmp_path / "m.onnx", integer_weights=True).path
    graph = OnnxGraph(path)
    graph.check_quantizers()
    (node,) = graph.of("Gemm", "MatMul")
    weight = graph.dequantized(node, 1)
    stored, axis = graph.constants[weight.input[0]], graph.attribute(weight, "axis")
    assert stored.shape[axis] == 5 and graph.constants[weight.input[1]].shape == (5,)
    torch.testing.assert_close(run_onnx(path, x)[0], model(x).detach(), rtol=0, atol=1e-5)


class TestSize:
    model = staticmethod(lambda config: quantize(fused(perceptron(256, 512)), [random_input(4, 256)], config))
    x = random_input(4, 256)

    @pytest.mark.parametrize(("name", "share"), [("int8", 0.35), ("fp8", 0.35), ("int4", 0.2)])
    def test_integer_weights_are_a_fraction(self, name, share, tmp_path):
        in_float = sum(t.numel() * t.element_size() for t in perceptron(256, 512).state_dict().values())
        blocks = QuantConfig(None, TensorQuantConfig(n_bits=4, block_size=32))
        model = self.model(blocks if name == "int4" else CONFIGS[name])
        written = export_onnx(model, self.x, tmp_path / "m.onnx", integer_weights=True)
        assert written.size == written.path.stat().st_size < share * in_float
        graph = OnnxGraph(written.path)
        assert not [n for n, v in graph.constants.items() if v.dtype == np.float32 and v.size > 5000]
        assert not graph.of("Cast")

    def test_weights_of_a_large_model_lie_beside_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(onnx_export, "_EXTERNAL_DATA_BYTES", 100_000)
        model = self.model(None)
        written = export_onnx(model, self.x, tmp_path / "m.onnx", integer_weights=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
        assert written.path.stat().st_size < 50_000 < (tmp_path / "m.onnx.data").stat().st_size
        onnx.checker.check_model(str(written.path))
        torch.testing.assert_close(run_onnx(written.path, self.x)[0], model(self.x).detach(), rtol=0, atol=1e-3)


class TestRefused:
    def test_integer_weights_of_a_model_without_quantizers(self, tmp_path):
        with pytest.raises(InputError, match="integer_weights=True, but the model has no quantized weights"):
            export_onnx(fused(perceptron()), ROWS, tmp_path / "m.onnx", integer_weights=True)

    def test_a_model_that_is_not_calibrated(self, tmp_path):
        with pytest.raises(QuantizationError, match=r"not calibrated: .*Run calibrate"):
            export_onnx(inserted(perceptron()), ROWS, tmp_path / "m.onnx")
        assert not list(tmp_path.iterdir())
