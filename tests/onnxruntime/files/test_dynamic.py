"""Products with the range of each call: which kernels the runtime runs, and that they give the model's numbers."""

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.artifact import module_of, read_onnx
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantization_report, quantize
from embedl_deploy_onnxruntime import DYNAMIC
from support.nets import net, random_input
from support.onnxruntime_optimized import optimized

X = random_input(2, 5, 64)
ROWS = random_input(7, 64)
#: Products that read one tensor share its DynamicQuantizeLinear.
INTEGER = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")


def exported(model, x, path, config=DYNAMIC, **settings):
    model = quantize(transform(model.eval(), x, backend="onnxruntime"), config=config)
    export_onnx(model, x, path, **settings)
    return model


def perceptron(*, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48, bias=bias), nn.GELU(), nn.Linear(48, 32, bias=bias))


@pytest.mark.parametrize(
    ("bias", "x", "settings"),
    [
        (True, X, {}),
        (False, X, {"integer_weights": True}),
        (True, ROWS, {"integer_weights": True}),
        (False, ROWS, {}),
        (True, X, {"dynamic_batch": True}),
        (True, ROWS, {"dynamic_batch": True}),
    ],
)
def test_each_linear_is_one_kernel(tmp_path, bias, x, settings):
    path = tmp_path / "m.onnx"
    model = exported(perceptron(bias=bias), x, path, **settings)
    kernels, found = optimized(path, x)
    assert kernels == {"DynamicQuantizeMatMul": 2, "Gelu": 1}
    torch.testing.assert_close(found, model(x).detach(), rtol=0, atol=1e-6)


def test_linears_of_one_tensor_quantize_it_once(tmp_path):
    path = tmp_path / "m.onnx"
    parts = {name: nn.Linear(64, 16) for name in ("q", "k", "v")}
    model = exported(net(lambda m, x: m.q(x) * m.k(x) + m.v(x), **parts), X, path)
    kernels, found = optimized(path, X)
    assert kernels["DynamicQuantizeLinear"] == 1
    assert kernels["MatMulIntegerToFloat"] == 3
    torch.testing.assert_close(found, model(X).detach(), rtol=0, atol=1e-5)


def test_every_linear_of_a_transformer(tmp_path):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, activation="gelu", dropout=0.0)
    model = exported(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), X, tmp_path / "m.onnx")
    kernels, found = optimized(tmp_path / "m.onnx", X)
    weights = [point for point in quantization_report(model).quantized if point.label == "weight"]
    assert len(weights) == 8  # of each layer: queries, keys and values in one, their sum, and two of the perceptron
    assert sum(kernels[kind] for kind in INTEGER) == 8
    assert not {"Gemm", "MatMulNBits", "DequantizeLinear", "QuantizeLinear"} & set(kernels)
    wanted = model(X).detach()
    assert (found - wanted).abs().max() < 0.02 * wanted.abs().max()  # values on edges fall to either side


def test_nodes_name_their_module(tmp_path):
    exported(perceptron(), X, tmp_path / "m.onnx")
    nodes = [node for node in read_onnx(tmp_path / "m.onnx").graph if node.op_type in ("MatMulInteger", "Cast", "Mul")]
    assert {module_of(node) for node in nodes[:4]} == {"0"}
    assert {module_of(node) for node in nodes if node.op_type == "MatMulInteger"} == {"0", "2"}


def kinds_of(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize(
    "weight",
    [
        TensorQuantConfig(Precision.INT4, block_size=32),
        TensorQuantConfig(symmetric=False),
        TensorQuantConfig(Precision.INT16, per_channel=True),
        None,
    ],
    ids=str,
)
def test_other_weights_are_left_as_they_are(tmp_path, weight):
    activation, model = DYNAMIC.activation, perceptron()
    with torch.no_grad():
        model[0].weight += 0.3  # so that it has a zero point
        model[2].weight += 0.3
    exported(model, X, tmp_path / "m.onnx", QuantConfig(activation=activation, weight=weight, policy="dynamic"))
    assert "MatMulInteger" not in kinds_of(tmp_path / "m.onnx")
    assert "DynamicQuantizeLinear" in kinds_of(tmp_path / "m.onnx")


def test_a_weight_with_one_scale(tmp_path):
    config = QuantConfig(activation=DYNAMIC.activation, weight=TensorQuantConfig(), policy="dynamic")
    model = exported(perceptron(), X, tmp_path / "m.onnx", config)
    kernels, found = optimized(tmp_path / "m.onnx", X)
    assert kernels["DynamicQuantizeMatMul"] == 2
    torch.testing.assert_close(found, model(X).detach(), rtol=0, atol=1e-6)


def test_float16_is_left_as_it_is(tmp_path):
    exported(perceptron(), X, tmp_path / "m.onnx", dtype=torch.float16)
    assert "MatMulInteger" not in kinds_of(tmp_path / "m.onnx")


def test_the_policy_leaves_all_else_in_float():
    torch.manual_seed(0)
    model = net(
        lambda m, x: m.head((y := torch.relu(m.conv(x))).flatten(2) @ y.flatten(2).transpose(1, 2)),
        conv=nn.Conv2d(3, 8, 3),
        head=nn.Linear(8, 4),
    )
    report = quantization_report(
        quantize(transform(model, random_input(2, 3, 8, 8), backend="onnxruntime"), None, DYNAMIC)
    )
    assert [(point.path, point.label) for point in report.quantized] == [("head", "input 0"), ("head", "weight")]
    reasons = {point.label: point.rule for point in report.not_quantized if point.path == "conv"}
    assert "integer kernels of convolutions give integers" in reasons["weight"]
    assert "not known before it is computed" in reasons["output"]


def test_a_layer_that_is_called_twice_is_stored_once(tmp_path):
    torch.manual_seed(0)
    model = net(lambda m, x: m.layer(torch.tanh(m.layer(x))), layer=nn.Linear(64, 64))
    model = exported(model, X, tmp_path / "m.onnx")
    stored = [v for v in read_onnx(tmp_path / "m.onnx").graph.initializers.values() if len(v.shape) == 2]
    assert len(stored) == 1
    kernels, _ = optimized(tmp_path / "m.onnx", X)
    assert kernels["DynamicQuantizeMatMul"] == 2
