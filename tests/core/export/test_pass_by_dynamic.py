"""A file without its DynamicQuantizeLinear: the product of what they read, also where integers are multiplied."""

import functools
import itertools

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.export.off_the_grid import run_without_quantizers, without_quantizers
from embedl_deploy.quantize import DynamicQuantizer, Precision, QuantConfig, TensorQuantConfig, freeze, quantize
from support.nets import random_input
from support.quantizable import fused

EACH_CALL = TensorQuantConfig(Precision.UINT8, symmetric=False, dynamic=True)
ROWS = random_input(16, 32)


@functools.cache
def quantized():
    torch.manual_seed(0)
    layers = itertools.chain.from_iterable((nn.Linear(32, 32), nn.Tanh()) for _ in range(4))
    return quantize(fused(nn.Sequential(*layers).eval()), config=QuantConfig(activation=EACH_CALL))


def test_of_the_model_too():
    model = freeze(quantized(), weights=False)
    passing = without_quantizers(model)
    assert not any(isinstance(part, DynamicQuantizer) for part in passing.modules())
    x = ROWS
    for part in (part for part in model.modules() if isinstance(part, nn.Linear)):
        step = part.weight.abs().amax(1, keepdim=True) / 127
        x = torch.tanh(nn.functional.linear(x, (part.weight / step).round() * step, part.bias))
    torch.testing.assert_close(passing(ROWS), x, rtol=0, atol=1e-5)


def test_dequantized_values_are_what_they_were_made_of(tmp_path):
    export_onnx(quantized(), ROWS, tmp_path / "m.onnx", tolerance=None)
    (found,), count = run_without_quantizers(tmp_path / "m.onnx", quantized(), [ROWS])
    assert count == 4
    wanted = without_quantizers(freeze(quantized(), weights=False))(ROWS)
    torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-5)


def integer_product(path, *, outside=False):
    """(q, s, z) of x, MatMulInteger(q, w, z)·(s·s_w) + b, with w of 5 × 3; ``outside``: an Add reads q, as floats."""
    helper = onnx.helper
    generator = np.random.default_rng(0)
    weight = generator.integers(-127, 128, (5, 3)).astype(np.int8)
    scale, bias = (generator.random(3).astype(np.float32) for _ in range(2))
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "s_w"], ["scale"]),
        helper.make_node("Mul", ["f", "scale"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 3])]
    if outside:
        nodes.append(helper.make_node("Cast", ["q"], ["seen"], to=onnx.TensorProto.FLOAT))
        outputs.append(helper.make_tensor_value_info("seen", onnx.TensorProto.FLOAT, [4, 5]))
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 5])]
    constants = [
        onnx.numpy_helper.from_array(value, name) for name, value in (("w", weight), ("s_w", scale), ("b", bias))
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return weight, scale, bias


class OneProduct(nn.Module):
    """Where the quantizer of :func:`integer_product` is in a model: in no module with a name."""

    def __init__(self):
        super().__init__()
        self.x_quant = DynamicQuantizer(EACH_CALL, "x")


def test_an_integer_product_is_one_of_floats(tmp_path):
    weight, scale, bias = integer_product(tmp_path / "m.onnx")
    x = random_input(4, 5)
    (found,), count = run_without_quantizers(tmp_path / "m.onnx", OneProduct(), [x])
    assert count == 1
    wanted = x.numpy().astype(np.float64) @ (weight * scale.astype(np.float64)) + bias
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-5)


def test_integers_that_something_else_reads_are_left_alone(tmp_path):
    integer_product(tmp_path / "m.onnx", outside=True)
    assert run_without_quantizers(tmp_path / "m.onnx", OneProduct(), [random_input(4, 5)]) == (None, 0)


@pytest.mark.parametrize("kind", ["static", "none"])
def test_another_quantizer_in_the_model_is_no_agreement(tmp_path, kind):
    path = tmp_path / "m.onnx"
    export_onnx(quantized(), ROWS, path, tolerance=None)
    if kind == "none":
        model = without_quantizers(quantized())
    else:
        static = TensorQuantConfig(Precision.UINT8, symmetric=False)
        torch.manual_seed(0)
        layers = itertools.chain.from_iterable((nn.Linear(32, 32), nn.Tanh()) for _ in range(4))
        model = quantize(fused(nn.Sequential(*layers).eval()), [ROWS], QuantConfig(activation=static))
    assert run_without_quantizers(path, model, [ROWS]) == (None, 0)
