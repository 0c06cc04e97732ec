"""The last changes to exported files: what they write, what the runtime makes of it, and what they leave alone."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from embedl_deploy import check, export_onnx, transform
from embedl_deploy.export import run_onnx
from embedl_deploy.patterns import Applied
from embedl_deploy.quantize import quantize
from embedl_deploy.verify import signal_to_noise
from embedl_deploy_onnxruntime import U8S8, WEIGHTS_8BIT
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


@pytest.mark.parametrize("opset", [18, 21, 23])
@pytest.mark.parametrize("shape", [(3, 16), (2, 3, 16)], ids=["vectors", "sequences"])
def test_a_product_with_a_bias_runs_in_integers_and_gives_floats(shape, opset, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(shape)
    path, model = quantized_file(nn.Sequential(nn.Linear(16, 8)), x, tmp_path, integer_weights=True, opset=opset)
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


@pytest.mark.parametrize("per_channel", [True, False], ids=["channels", "tensor"])
@pytest.mark.parametrize("turned", [True, False], ids=["Transpose", "as it is"])
@pytest.mark.parametrize("zero", [0, 3], ids=["symmetric", "zero point"])
def test_a_weight_is_rounded_so_that_integers_hold_the_bias_beside_it(per_channel, turned, zero):
    f = OnnxFile()
    scales = np.array([1e-9, 0.5, 1e-2], np.float32) if per_channel else np.float32(1e-9)
    stored = np.array([[127, -127, 64, 2]] * 3)
    settings = [f.constant(scales), f.constant(np.full(scales.shape, zero), INT8)]
    w = f.node("DequantizeLinear", f.constant(stored if turned else stored.T, INT8), *settings, axis=0 if turned else 1)
    x = f.qdq(f.input(2, 4), 0.25, UINT8)
    product = f.node("MatMul", x, f.node("Transpose", w, perm=[1, 0]) if turned else w)
    y = f.node("Add", product, f.constant([8.0, 4.0, -2.0]))  # it fits beside the second and third channel
    other = f.node("Relu", w)
    model = f.model(y, other)
    quantize_biases(model)
    found = {node.op_type: node for node in model.graph}
    # s_w ≥ |b| / (s_x 2²⁹), by hand: 8 / (¼ 2²⁹) = 2⁻²⁴
    widened = np.array([2**-24, 0.5, 1e-2], np.float32) if per_channel else np.float32(2**-24)
    weight = found["MatMul"].inputs[1].producer()
    integers, scale, zero_point = (value.const_value.numpy() for value in weight.inputs)
    np.testing.assert_array_equal(scale, widened)
    assert (zero_point == zero).all()
    ratio = np.broadcast_to(np.asarray(scales, np.float64) / widened, 3)
    np.testing.assert_array_equal(integers, np.rint((stored - zero) * ratio[:, None] + zero).T)
    assert not per_channel or weight.attributes["axis"].as_int() == 1
    bias, of_bias, _ = (value.const_value.numpy() for value in found["Add"].inputs[1].producer().inputs)
    assert bias.dtype == np.int32
    np.testing.assert_allclose(bias * np.float64(of_bias), [8.0, 4.0, -2.0], rtol=1e-6, atol=0.01)
    assert found["Relu"].inputs[0].producer().inputs[1].const_value.numpy().tolist() == scales.tolist()


@pytest.mark.parametrize("weights", [1e-12, 1e-6, 0.0], ids=["of nothing", "small", "zero"])
def test_a_channel_that_training_has_given_up_keeps_its_bias_in_the_runtime(weights, tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = nn.Sequential(*layers, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        for place in (0, 2, 5, 7):
            net[place].weight[1] *= weights
            net[place].bias[1] = 0.5
    x = torch.randn(2, 3, 12, 12)
    path, model = quantized_file(net, x, tmp_path, integer_weights=True)
    found = kernels(path, tmp_path)
    assert found.count("QLinearConv") == 2
    assert found.count("QGemm") == 2
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert signal_to_noise(model(x), torch.from_numpy(answer)) > 40  # dB: but for steps at ties


def test_a_product_whose_rectifier_is_read_in_float_runs_in_integers(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 16)
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 8))
    path, model = quantized_file(net, x, tmp_path, integer_weights=True)
    found = kernels(path, tmp_path)
    assert found.count("QGemm") == 2
    assert "DequantizeLinear" not in found
    with torch.no_grad():
        assert signal_to_noise(model(x), run_onnx(path, x)[0]) > 40  # dB


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


def test_a_factor_behind_what_moves_values_becomes_part_of_a_scale(tmp_path):
    torch.manual_seed(0)
    net = Applied(lambda conv, last, x: last(conv(x).transpose(2, 3) * 0.25), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    path, model = quantized_file(net, torch.randn(1, 3, 6, 5), tmp_path)
    assert "Mul" not in [node.op_type for node in ir.load(path).graph]
    x = torch.randn(1, 3, 6, 5)
    with torch.no_grad():
        assert signal_to_noise(model(x), run_onnx(path, x)[0]) > 40  # dB: but for steps at ties


def test_a_factor_with_more_dimensions_stays():
    f = OnnxFile()
    x = f.qdq(f.input(2, 4), 0.5, UINT8)
    x.shape = ir.Shape([2, 4])
    model = f.model(f.node("Relu", f.node("Mul", x, f.constant([[[2.0]]]))))  # 1×2×4
    fold_factors(model)
    assert [node.op_type for node in model.graph] == ["QuantizeLinear", "DequantizeLinear", "Mul", "Relu"]


def test_only_the_values_of_a_pool_are_dequantized_not_its_indices(tmp_path):
    class Indices(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool, self.last = (
                nn.Conv2d(3, 8, 3),
                nn.MaxPool2d(2, return_indices=True),
                nn.Conv2d(8, 8, 1),
            )

        def forward(self, x):
            y, indices = self.pool(torch.relu(self.conv(x)))
            return self.last(y), indices

    torch.manual_seed(0)
    x = torch.randn(1, 3, 12, 12)
    path, model = quantized_file(Indices(), x, tmp_path)
    found, indices = run_onnx(path, x)
    with torch.no_grad():
        expected = model(x)
    assert indices.dtype == torch.int64
    assert torch.equal(indices, expected[1])
    assert signal_to_noise(expected[0], found) > 40  # dB
    assert kernels(path, tmp_path).count("QLinearConv") == 2


@pytest.mark.parametrize("layer", [nn.AvgPool2d(2), nn.BatchNorm2d(8)], ids=["pool", "norm"])
def test_what_is_a_convolution_in_float32_stays_in_float16(layer, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 12, 12)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), layer, nn.Conv2d(8, 4, 1))
    path, _ = quantized_file(net, x, tmp_path, dtype=torch.float16)
    assert [node.op_type for node in ir.load(path).graph].count("Conv") == 2


def test_a_mean_of_double_numbers_stays_a_mean(tmp_path):
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    net = transform(Applied(lambda x: x.mean((2, 3))), x, backend="onnxruntime")
    exported = export_onnx(net, x, tmp_path / "net.onnx")  # the runtime has no pool of these
    assert [node.op_type for node in ir.load(exported.path).graph] == ["ReduceMean"]


@pytest.mark.parametrize("config", [U8S8, WEIGHTS_8BIT], ids=["U8S8", "8BIT"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("shape", [(4, 16), (2, 3, 16)], ids=["vectors", "sequences"])
def test_a_rectifier_that_is_read_in_float_does_not_keep_a_product_from_its_kernel(tmp_path, shape, act, bias, config):
    """As in StarReLU (Yu et al. 2022), s · relu(x)² + b."""
    torch.manual_seed(0)
    x = torch.randn(shape)
    net = nn.Sequential(nn.Linear(16, 24, bias=bias), act(), Applied(lambda y: 0.9 * y**2 + 0.1), nn.LayerNorm(24))
    model = quantize(transform(net.eval(), x, backend="onnxruntime"), [x], config, progress=False)
    export_onnx(model, x, tmp_path / "net.onnx")
    assert not set(kernels(tmp_path / "net.onnx", tmp_path)) & {"MatMul", "Gemm", "FusedGemm"}
    assert not [f for f in check(tmp_path / "net.onnx", "onnxruntime").findings if f.rule in ("ORT-01", "ORT-16")]


def test_products_of_one_matrix_run_in_integers(tmp_path):
    """As a cosine transform, over rows and over columns."""

    class Transform(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("basis", torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            rows = nn.functional.linear(x, self.basis)
            return nn.functional.linear(rows.transpose(1, 2), self.basis)

    x = torch.randn(2, 8, 8)
    path, model = quantized_file(Transform(), x, tmp_path, integer_weights=True)
    found = kernels(path, tmp_path)
    assert sum(found.count(kind) for kind in ("QLinearMatMul", "MatMulIntegerToFloat")) == 2
    assert not set(found) & {"MatMul", "Gemm"}
    stored = [value for value in ir.load(path).graph.initializers.values() if value.shape == (8, 8)]
    assert len(stored) == 1
    (given,) = run_onnx(path, x)
    torch.testing.assert_close(given, model(x).detach(), rtol=0, atol=1e-4)
