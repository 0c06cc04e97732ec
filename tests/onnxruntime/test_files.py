"""The last changes to exported files: what they write, what the runtime makes of it, and what they leave alone."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import quantize
from embedl_deploy_onnxruntime.files.biases import quantize_biases
from embedl_deploy_onnxruntime.files.factors import fold_factors
from embedl_deploy_onnxruntime.files.gelu import reorder_gelu
from support.onnx_files import INT8, UINT8, OnnxFile


def kernels(path, tmp_path):
    """The operators of a session's optimized model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in ir.load(tmp_path / "optimized.onnx").graph]


def quantized_file(net, x, tmp_path, **settings):
    """Exported for the backend with quantizers at all points."""
    model = quantize(transform(net.eval(), x, backend="onnxruntime"), [x], progress=False)
    exported = export_onnx(model, x, tmp_path / "net.onnx", **settings)
    return exported.path, model


@pytest.mark.parametrize("shape", [(3, 16), (2, 3, 16)], ids=["vectors", "sequences"])
def test_a_product_with_a_bias_runs_in_integers_and_gives_floats(shape, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(shape)
    path, model = quantized_file(nn.Sequential(nn.Linear(16, 8)), x, tmp_path, integer_weights=True)
    found = kernels(path, tmp_path)
    assert "QGemm" in found
    assert "DequantizeLinear" not in found
    # y = s_x s_w (q_x q_w + round(b / (s_x s_w))), by hand
    module = model.get_submodule("0")
    weight = module.weight_fake_quant.quantizer
    stub = next(
        part for name, part in model.named_modules() if name.endswith("_quant.quantizer") and part is not weight
    )
    s_x, z_x, s_w = stub.scale.double(), stub.zero_point.double(), weight.scale.double()
    q_x = (x.double() / s_x).round().add(z_x).clamp(0, 255) - z_x
    q_w = (module.linear.weight.double() / s_w[:, None]).round().clamp(-128, 127)
    bias = (module.linear.bias.double() / (s_x * s_w)).round()
    expected = s_x * s_w * (q_x @ q_w.T + bias)
    (found,) = run_onnx(path, x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_bias_that_integers_cannot_hold_stays(tmp_path):
    f = OnnxFile()
    x = f.qdq(f.input(2, 4), 1e-9, UINT8)
    w = f.node("DequantizeLinear", f.weight(4, 4, dtype=INT8), f.constant(np.full(4, 1e-9)), axis=0)
    y = f.node("Gemm", x, w, f.constant([1.0, 2.0, 3.0, 4.0]), transB=1)
    model = f.model(y)
    before = [node.op_type for node in model.graph]
    quantize_biases(model)
    assert [node.op_type for node in model.graph] == before


def test_a_bias_of_a_float_product_stays():
    f = OnnxFile()
    y = f.node("Gemm", f.input(2, 4), f.weight(4, 4), f.weight(4), transB=1)
    model = f.model(y)
    quantize_biases(model)
    assert [node.op_type for node in model.graph] == ["Gemm"]


def test_gelu_is_one_kernel(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8)
    net = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)).eval()
    exported = export_onnx(transform(net, x, backend="onnxruntime"), x, tmp_path / "net.onnx")
    found = kernels(exported.path, tmp_path)
    assert "Erf" not in found
    assert {"Gelu", "BiasGelu"} & set(found)


def test_another_function_of_erf_stays():
    f = OnnxFile()
    x = f.input(2, 4)
    y = f.node("Mul", f.constant(0.5), f.node("Add", f.node("Erf", x), f.constant(1.0)))
    model = f.model(y)
    reorder_gelu(model)
    assert [[v.name for v in node.inputs] for node in model.graph][-1][0] == "c0"


def test_a_factor_becomes_part_of_a_scale():
    f = OnnxFile()
    model = f.model(f.node("Div", f.qdq(f.input(2, 4), 0.5, UINT8), f.constant(4.0)))
    fold_factors(model)
    *_, last = model.graph
    # the value is that of the model's output, so nothing is folded there
    assert last.op_type == "Div"
    f = OnnxFile()
    model = f.model(f.node("Relu", f.node("Div", f.qdq(f.input(2, 4), 0.5, UINT8), f.constant(4.0))))
    fold_factors(model)
    kinds = [node.op_type for node in model.graph]
    assert kinds == ["QuantizeLinear", "DequantizeLinear", "Relu"]
    quantizes, dequantizes, _ = model.graph
    assert quantizes.inputs[1].const_value.numpy() == 0.5
    assert dequantizes.inputs[1].const_value.numpy() == 0.125


@pytest.mark.parametrize(
    "act", [nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(), nn.LeakyReLU(0.1), nn.ReLU6()]
)
@pytest.mark.parametrize("inplace", [False, True])
def test_activations_between_convolutions_run_in_integers(act, inplace, tmp_path):
    torch.manual_seed(0)
    if hasattr(act, "inplace"):
        act.inplace = inplace
    x = torch.randn(2, 8, 12, 12)
    net = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), act, nn.Conv2d(16, 8, 1))
    path, model = quantized_file(net, x, tmp_path)
    found = kernels(path, tmp_path)
    assert found.count("QLinearConv") == 2
    assert not {"Conv", "FusedConv", "Sigmoid", "HardSigmoid", "LeakyRelu", "Mul", "Add", "Clip"} & set(found)
    # one for the output; Hardsigmoid gives sixths of what its range holds, which its reader rounds once more
    assert found.count("DequantizeLinear") == 1 + isinstance(act, nn.Hardsigmoid)
    with torch.no_grad():
        wanted = net(x)
    assert (model(x) - wanted).norm() < 0.05 * wanted.norm()


def test_a_gate_of_squeeze_and_excitation_runs_in_integers(tmp_path):
    torch.manual_seed(0)

    class Excited(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.gate = nn.Sequential(
                *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid())
            )
            self.last = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.last(y * self.gate(y))

    x = torch.randn(2, 8, 12, 12)
    path, _ = quantized_file(Excited(), x, tmp_path)
    found = kernels(path, tmp_path)
    assert {"QLinearConv", "QLinearGlobalAveragePool", "QLinearSigmoid", "QLinearMul"} <= set(found)
    assert not {"Conv", "GlobalAveragePool", "ReduceMean", "Sigmoid", "Mul"} & set(found)
