"""Activations with the range of each call: the numbers of ONNX's DynamicQuantizeLinear, without state."""

import copy
import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.errors import InputError, QuantizationConfigError
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import (
    CalibrationMethod,
    DynamicQuantizer,
    LayerQuantConfig,
    Precision,
    QuantConfig,
    QuantizationRecipe,
    Quantizer,
    TensorQuantConfig,
    calibrate,
    freeze,
    insert_qdq,
    quantization_recipe,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.grid.dynamic import dynamic_grid, fake_quantize_dynamic
from embedl_deploy.sensitivity import sensitivity
from support.nets import random_input
from support.quantizable import IMAGES, ROWS, OnnxGraph, fused, perceptron, residual_block

EACH_CALL = TensorQuantConfig(Precision.UINT8, symmetric=False, dynamic=True)
DYNAMIC = QuantConfig(activation=EACH_CALL)


@pytest.fixture(scope="module")
def operator(tmp_path_factory):
    """DynamicQuantizeLinear and back, by ONNX's own evaluator and by ONNX Runtime."""
    helper = onnx.helper
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    kinds = {"y": 1, "q": 2, "s": 1, "z": 2}
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    inputs = [helper.make_tensor_value_info("x", 1, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    reference = ReferenceEvaluator(model)
    return lambda x: (reference.run(None, {"x": x}), session.run(None, {"x": x}))


def spread(kind, shape):
    return random_input(*shape) * kind[0] + kind[1]


TENSORS = {
    "of both signs": spread((1, 0), (64, 96)),
    "above zero": spread((0.1, 5), (7, 5)),
    "below zero": spread((0.1, -5), (7, 5)),
    "a ReLU's": torch.relu(spread((3, 0), (128, 33))),
    "far": spread((1e30, 0), (9, 9)),
    "near": spread((1e-36, 0), (9, 9)),
    "one": torch.tensor([[-0.3]]),
    "zeros": torch.zeros(2, 3),
    "on edges": torch.arange(-300, 301) / 2 * 0.5,  # a range of 150 and halves of steps, rounded to even
    "an outlier": torch.cat([spread((1, 0), (999,)), torch.tensor([200.0])]),
    "turned": spread((1, 0), (6, 4, 5)).permute(2, 0, 1),
    "a number": torch.tensor(2.5),
}


@pytest.mark.parametrize("name", TENSORS)
def test_the_numbers_are_those_of_onnx_and_of_onnx_runtime(operator, name):
    x = TENSORS[name].float()
    found = fake_quantize_dynamic(x)
    for other, *_ in operator(x.numpy()):
        assert np.array_equal(found.numpy(), other)


@pytest.mark.parametrize("seed", range(20))
def test_so_are_scale_and_zero_point(operator, seed):
    torch.manual_seed(seed)
    x = torch.randn(50) * 10 ** torch.randint(-6, 6, ()) + torch.randn(()) * seed
    scale, zero_point = dynamic_grid(x)
    for _, _, other_scale, other_zero_point in operator(x.numpy()):
        assert float(scale) == float(other_scale)
        assert int(zero_point) == int(other_zero_point)


def test_the_example_of_the_standard():
    """onnx/backend/test/case/node/dynamicquantizelinear.py, the first."""
    x = torch.tensor([0, 2, -3, -2.5, 1.34, 0.5])
    scale, zero_point = dynamic_grid(x)
    assert (float(scale), int(zero_point)) == (pytest.approx(0.0196078438), 153)
    wanted = (torch.tensor([153, 255, 0, 26, 221, 179]) - 153) * scale
    assert torch.equal(fake_quantize_dynamic(x), wanted)


def test_the_range_is_that_of_the_call_and_of_all_of_it():
    alone, beside = fake_quantize_dynamic(ROWS[:1]), fake_quantize_dynamic(torch.cat([ROWS[:1], 100 * ROWS[1:]]))
    assert not torch.equal(alone[0], beside[0])
    step = float(dynamic_grid(100 * ROWS)[0])
    assert (beside[0] - ROWS[0]).abs().max() <= step


def test_a_range_that_float32_cannot_divide_is_zero():
    """ONNX Runtime, and ONNX's evaluator, divide by the scale that became 0."""
    assert torch.equal(fake_quantize_dynamic(torch.full((2, 2), 1e-45)), torch.zeros(2, 2))


def test_an_empty_tensor_stays_empty():
    assert fake_quantize_dynamic(torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_rounded_in_float32(dtype):
    x = random_input(5, 6).to(dtype)
    found = fake_quantize_dynamic(x)
    assert found.dtype is dtype
    assert torch.equal(found, fake_quantize_dynamic(x.float()).to(dtype))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": Precision.INT8}, r"dynamic with INT8.*Use precision=Precision\.UINT8"),
        ({"precision": Precision.FP8, "symmetric": True}, "dynamic with FP8"),
        ({"precision": Precision.INT16}, "dynamic with INT16"),
        ({"symmetric": True}, "an unsigned format needs a zero point"),
        ({"power_of_two": True}, "dynamic with power_of_two"),
        ({"learnable": True}, "zero points are not learned"),
        ({"centered": True}, "dynamic with centered"),
        ({"per_channel": True}, "zero points per channel"),
        ({"block_size": 8}, "blocks have no zero points"),
        *(
            ({"calibration_method": method}, f"dynamic with {method.name}|ENTROPY for an asymmetric range")
            for method in CalibrationMethod
            if method is not CalibrationMethod.MINMAX
        ),
    ],
)
def test_what_makes_no_sense_is_refused(settings, words):
    with pytest.raises(QuantizationConfigError, match=words):
        TensorQuantConfig(**{"precision": Precision.UINT8, "symmetric": False, "dynamic": True, **settings})


def test_a_weight_has_no_range_of_each_call():
    with pytest.raises(QuantizationConfigError, match="weight is dynamic; a weight is the same in every call"):
        QuantConfig(weight=EACH_CALL)


def test_in_another_format_ranges_are_calibrated():
    other = EACH_CALL.in_precision(Precision.INT8)
    assert (other.precision, other.symmetric, other.dynamic) == (Precision.INT8, False, False)
    assert EACH_CALL.in_precision(Precision.UINT8) == EACH_CALL
    assert TensorQuantConfig.from_dict(EACH_CALL.to_dict()) == EACH_CALL
    assert str(EACH_CALL) == "UINT8 asymmetric dynamic"


class TestWithoutData:
    def test_the_model_is_what_its_layers_compute(self):
        original = perceptron()
        model = quantize(fused(original), config=DYNAMIC)

        def layer(linear, x):
            step = linear.weight.abs().amax(1, keepdim=True) / 127
            weight = (linear.weight / step).round() * step
            return nn.functional.linear(fake_quantize_dynamic(x), weight, linear.bias)

        wanted = layer(original.second, torch.relu(layer(original.first, ROWS)))
        torch.testing.assert_close(model(ROWS), wanted, rtol=0, atol=1e-6)
        report = quantization_report(model)
        assert {point.config for point in report.quantized} == {"UINT8 asymmetric dynamic", "INT8 per channel minmax"}

    def test_data_changes_nothing(self):
        result = fused(residual_block())
        model, other = quantize(result, config=DYNAMIC), quantize(result, [IMAGES], DYNAMIC)
        assert torch.equal(model(IMAGES), other(IMAGES))

    def test_weights_alone_need_none_either(self):
        weights_only = QuantConfig(activation=None)
        result = fused(residual_block())  # whose convolutions are quantized with their batch norm
        model, other = quantize(result, config=weights_only), quantize(result, [IMAGES], weights_only)
        assert torch.equal(model(IMAGES), other(IMAGES))

    def test_in_two_steps(self):
        result = fused(perceptron())
        model = insert_qdq(result.model, result.matches, DYNAMIC)
        assert calibrate(model) == []
        assert torch.equal(model(ROWS), quantize(result, config=DYNAMIC)(ROWS))

    def test_channels_of_zeros_are_told(self):
        original = perceptron()
        with torch.no_grad():
            original.first.weight[3] = 0
        result = fused(original)
        model = insert_qdq(result.model, result.matches, DYNAMIC)
        assert calibrate(model) == ["first weight"]
        assert "zero, in whole or in some channel" in str(quantization_report(model).findings[0])

    def test_activations_with_a_calibrated_range_need_data(self):
        with pytest.raises(InputError, match=r"finds the ranges of 2 activation\(s\): the output of x, .*dynamic=True"):
            quantize(fused(perceptron()))

    @pytest.mark.parametrize("method", ["equalization", "smooth_quant", "bias_correction", "learned_rounding"])
    def test_so_do_methods_that_look_at_activations(self, method):
        with pytest.raises(InputError, match=f"{method} needs calibration data"):
            quantize(fused(perceptron()), config=DYNAMIC, **{method: True})

    def test_methods_work_with_data(self):
        result = fused(perceptron())
        with torch.no_grad():
            exact = result.model(ROWS)
            for method in ("smooth_quant", "bias_correction", "learned_rounding"):
                y = quantize(result, [ROWS], DYNAMIC, progress=False, **{method: True})(ROWS)
                assert (y - exact).norm() / exact.norm() < 0.02, method


def test_others_are_calibrated_in_float():
    static = LayerQuantConfig(TensorQuantConfig(), TensorQuantConfig(per_channel=True))
    result = fused(perceptron())
    model = quantize(result, [ROWS], QuantConfig(activation=EACH_CALL, overrides={"second": static}))
    (part,) = (part for part in model.modules() if isinstance(part, Quantizer) and not part.is_weight)
    hidden = torch.relu(result.model.first(ROWS)).detach()
    assert float(part.scale) == float((hidden.abs().max().double() / 127).float())


class TestState:
    def test_there_is_none(self):
        model = quantize(fused(perceptron()), config=DYNAMIC)
        dynamic = [part for part in model.modules() if isinstance(part, DynamicQuantizer)]
        assert len(dynamic) == 2
        assert all(not part.state_dict() for part in dynamic)
        assert {name for name in model.state_dict() if "scale" in name} == {
            "first.weight_fake_quant.quantizer.scale",
            "second.weight_fake_quant.quantizer.scale",
        }

    def test_a_recipe_rebuilds_it(self):
        result = fused(perceptron())
        model = freeze(quantize(result, config=DYNAMIC))
        recipe = QuantizationRecipe.from_json(quantization_recipe(model).to_json())
        rebuilt = recipe.rebuild(fused(perceptron()))
        rebuilt.load_state_dict(model.state_dict())
        assert torch.equal(rebuilt(ROWS), model(ROWS))
        assert str(quantization_report(rebuilt)).splitlines()[1:] == str(quantization_report(model)).splitlines()[1:]

    def test_the_state_of_another_format_is_refused(self):
        result = fused(perceptron())
        static = quantize(result, [ROWS], QuantConfig(activation=TensorQuantConfig(Precision.UINT8, symmetric=False)))
        dynamic = quantize(result, config=DYNAMIC)
        with pytest.raises(RuntimeError, match="the model quantizes to UINT8 with the range of each call asymmetric"):
            dynamic.load_state_dict(static.state_dict())

    def test_frozen_it_computes_the_same(self):
        model = quantize(fused(residual_block()), config=DYNAMIC)
        torch.testing.assert_close(freeze(model)(IMAGES), model(IMAGES), rtol=0, atol=1e-6)


def test_training_goes_straight_through():
    x = ROWS.clone().requires_grad_()
    fake_quantize_dynamic(x).square().sum().backward()
    assert torch.equal(x.grad, 2 * fake_quantize_dynamic(ROWS))
    model = quantize(fused(perceptron()), config=DYNAMIC).train()
    target = torch.randn(ROWS.shape[0], 4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = (model(ROWS) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    assert calibrate(model) == []  # weights have changed, and their scales follow


def test_sensitivity_measures_it():
    model = quantize(fused(perceptron()), config=DYNAMIC)
    report = sensitivity(model, [ROWS], progress=False)
    assert [layer.path for layer in report.layers] == ["first", "second"]
    assert all(math.isfinite(layer.activation_alone) and 20 < layer.activation_alone < 80 for layer in report.layers)


class TestFile:
    @pytest.mark.parametrize("integer_weights", [False, True])
    def test_in_float32_it_computes_the_same_numbers(self, tmp_path, integer_weights):
        model = quantize(fused(perceptron()), config=DYNAMIC)
        written = export_onnx(model, ROWS, tmp_path / "m.onnx", integer_weights=integer_weights, dynamic_batch=True)
        assert written.difference.max_rel < 1e-6
        graph = OnnxGraph(tmp_path / "m.onnx")
        assert len(graph.of("DynamicQuantizeLinear")) == 2
        assert all(graph.dequantized(node, 0) is not None for node in graph.of("MatMul", "Gemm"))
        (found,) = run_onnx(tmp_path / "m.onnx", ROWS[:2])
        torch.testing.assert_close(found, model(ROWS[:2]).detach(), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_in_16_bits_the_range_is_found_in_float32(self, tmp_path, dtype):
        model = quantize(fused(perceptron()), config=DYNAMIC)
        export_onnx(model, ROWS, tmp_path / "m.onnx", dtype=dtype)
        graph = OnnxGraph(tmp_path / "m.onnx")
        before = [graph.producer[node.input[0]] for node in graph.of("DynamicQuantizeLinear")]
        assert [node.op_type for node in before] == ["Cast", "Cast"]

    def test_torch_alone_writes_it_too(self, tmp_path):
        model = quantize(fused(perceptron()), config=DYNAMIC).eval()
        torch.onnx.export(model, (ROWS,), tmp_path / "m.onnx", dynamo=True, verbose=False, external_data=False)
        (found,) = run_onnx(tmp_path / "m.onnx", ROWS)
        torch.testing.assert_close(found, model(ROWS).detach(), rtol=0, atol=1e-6)


def test_a_copy_is_one_as_well():
    model = copy.deepcopy(quantize(fused(perceptron()), config=DYNAMIC))
    assert sum(isinstance(part, Quantizer) for part in model.modules()) == 2
    assert "UINT8 asymmetric dynamic" in repr(model)
