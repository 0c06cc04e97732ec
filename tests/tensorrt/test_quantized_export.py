"""Every fused module of TensorRT, quantized, as an ONNX file: the file computes what the model computes."""

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from embedl_deploy import export_onnx, transform
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import (
    LayerQuantConfig,
    Precision,
    QuantConfig,
    TensorQuantConfig,
    quantization_report,
    quantize,
)
from embedl_deploy.tensorrt import modules
from support.nets import net, random_input
from support.quantizable import OnnxGraph

IMAGES = random_input(2, 4, 6, 6)
STEM = random_input(2, 3, 12, 12)
TOKENS = random_input(2, 5, 8)
FP8 = QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8, per_channel=True))


def attend(self, x):
    return self.attention(x, x, x, need_weights=False)[0]


#: By fused module: a model that becomes one, its input, and how many activations are quantized in it.
MODELS = {
    "FusedConvBN": (lambda m, x: m.bn(m.conv(x)), {"conv": nn.Conv2d(4, 6, 3), "bn": nn.BatchNorm2d(6)}, IMAGES, 1),
    "FusedConvBNReLU": (
        lambda m, x: torch.relu(m.bn(m.conv(x))),
        {"conv": nn.Conv2d(4, 6, 3, padding=1, bias=False), "bn": nn.BatchNorm2d(6)},
        IMAGES,
        1,
    ),
    "FusedConvBNReLUMaxPool": (
        lambda m, x: m.pool(torch.relu(m.bn(m.conv(x)))),
        {"conv": nn.Conv2d(3, 4, 7, 2, 3), "bn": nn.BatchNorm2d(4), "pool": nn.MaxPool2d(3, 2, 1)},
        STEM,
        1,
    ),
    "FusedConvBNAddReLU": (
        lambda m, x: torch.relu(m.bn(m.conv(x)) + x),
        {"conv": nn.Conv2d(4, 4, 3, padding=1), "bn": nn.BatchNorm2d(4)},
        IMAGES,
        1,
    ),
    "FusedLinear": (lambda m, x: m.fc(x), {"fc": nn.Linear(8, 6)}, TOKENS, 1),
    "FusedLinearReLU": (lambda m, x: m.act(m.fc(x)), {"fc": nn.Linear(8, 6), "act": nn.GELU()}, TOKENS, 1),
    "FusedLayerNorm": (lambda m, x: m.fc(m.norm(x)), {"norm": nn.LayerNorm(8), "fc": nn.Linear(8, 6)}, TOKENS, 1),
    "FusedRMSNorm": (
        lambda m, x: m.fc(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * m.weight),
        {"weight": nn.Parameter(torch.ones(8)), "fc": nn.Linear(8, 6)},
        TOKENS,
        1,
    ),
    "FusedLayerNorm2d": (
        lambda m, x: m.conv(m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
        {"norm": nn.LayerNorm(4), "conv": nn.Conv2d(4, 8, 1)},
        IMAGES,
        1,
    ),
    "FusedRecurrent": (
        lambda m, x: m.fc(m.rnn(x)[0]),
        {"rnn": nn.LSTM(8, 6, batch_first=True), "fc": nn.Linear(6, 8)},
        TOKENS,
        1,
    ),
    "FusedActAdd": (lambda m, x: m.act(x) + x.flip(0), {"act": nn.SiLU()}, IMAGES, 2),
    "FusedAdaptiveAvgPool2d": (lambda m, x: m.pool(x), {"pool": nn.AdaptiveAvgPool2d(1)}, IMAGES, 2),
    "FusedMHAInProjection": (attend, {"attention": nn.MultiheadAttention(8, 2, batch_first=True)}, TOKENS, 6),
    "FusedScaledDotProductAttention": (
        lambda m, x: x + attend(m, m.norm(x)),
        {"attention": nn.MultiheadAttention(8, 2, batch_first=True), "norm": nn.LayerNorm(8)},
        TOKENS,
        6,
    ),
    "FusedActivationProduct": (lambda m, x: m.fc(x) @ x.mT, {"fc": nn.Linear(8, 8)}, TOKENS, 3),
    "FusedSwinNormPartition": (
        lambda m, x: m.attention(m.norm(x)),
        {"attention": ShiftedWindowAttention(8, [3, 3], [1, 1], 2), "norm": nn.LayerNorm(8)},
        random_input(1, 6, 6, 8),
        2,
    ),
    "FusedSwinAttention": (
        lambda m, x: m.attention(x),
        {"attention": ShiftedWindowAttention(8, [3, 3], [1, 1], 2)},
        random_input(1, 6, 6, 8),
        2,
    ),
}


def test_every_fused_module_is_here():
    assert {name for name in modules.__all__ if name.startswith("Fused")} == set(MODELS) | {
        "FusedConvBNAct",
        "FusedConvBNActMaxPool",
        "FusedConvBNAddAct",
        "FusedLinearAct",
    }


def quantized(name, config):
    function, parts, x, _ = MODELS[name]
    result = transform(net(function, **parts), x, backend="tensorrt")
    assert name in {type(part).__name__ for part in result.model.modules()}
    return quantize(result, [x], config), x


@pytest.mark.parametrize(
    ("name", "config"),
    [*((name, None) for name in MODELS), ("FusedConvBNReLU", FP8), ("FusedMHAInProjection", FP8)],
    ids=[*MODELS, "FusedConvBNReLU in FP8", "FusedMHAInProjection in FP8"],
)
def test_agrees_within_one_step_of_the_output(name, config, tmp_path):
    model, x = quantized(name, config)
    wanted = model(x).detach()
    integers = any(p.label == "weight" for p in quantization_report(model).quantized)
    path = export_onnx(model, x, tmp_path / "m.onnx", integer_weights=integers, tolerance=None).path
    (got,) = run_onnx(path, x)
    assert float((got - wanted).abs().max()) <= float(wanted.abs().max()) / 127
    graph = OnnxGraph(path)
    graph.check_quantizers()
    assert len(graph.of("QuantizeLinear")) == MODELS[name][3]
    stored = [node for node in graph.of("DequantizeLinear") if graph.is_constant(node)]
    assert len(stored) == sum(p.label == "weight" for p in quantization_report(model).quantized)
    if name == "FusedLayerNorm":
        assert len(graph.of("LayerNormalization")) == 1
    if name == "FusedScaledDotProductAttention":
        check_attention(graph)


def check_attention(graph):
    """Both inputs of every product are quantized, the softmax by its fixed scale, and nothing stands in between."""
    products = graph.of("MatMul", "Gemm")
    assert len(products) == 4
    assert all(graph.dequantized(node, index) is not None for node in products for index in (0, 1))
    (softmax,) = graph.of("Softmax")
    (after,) = [node for node in graph.of("QuantizeLinear") if node.input[0] == softmax.output[0]]
    assert float(graph.constants[after.input[1]]) == pytest.approx(1 / 127)
    assert not graph.of("Cast")


def test_a_grouped_convolution_without_kernels_stays_in_float(tmp_path):
    x = random_input(1, 8, 4, 4)
    model = net(lambda m, x: m.b(m.a(x)), a=nn.Conv2d(8, 8, 1, groups=4), b=nn.Conv2d(8, 8, 1))
    quantized_model = quantize(transform(model, backend="tensorrt"), [x])
    graph = OnnxGraph(export_onnx(quantized_model, x, tmp_path / "m.onnx").path)
    grouped, plain = graph.of("Conv")
    assert [graph.dequantized(grouped, i) for i in (0, 1)] == [None, None]
    assert None not in [graph.dequantized(plain, i) for i in (0, 1)]


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_other_convolutions(kind, tmp_path):
    """In INT8, the transposed ones where it is asked for, with scales along the axis of the output channels."""
    x = random_input(2, 8, *(6, 5, 4)[: int(kind.__name__[-2])])
    model = nn.Sequential(kind(8, 16, 3, groups=2), nn.ReLU()).eval()
    overrides = {kind: LayerQuantConfig(TensorQuantConfig(), TensorQuantConfig(per_channel=True))}
    quantized_model = quantize(transform(model, x, backend="tensorrt"), [x], QuantConfig(overrides=overrides))
    assert float((quantized_model(x) - model(x)).detach().abs().max()) < 0.05 * float(model(x).detach().max())
    path = export_onnx(quantized_model, x, tmp_path / "m.onnx", integer_weights=True).path
    graph = OnnxGraph(path)
    (stored,) = [node for node in graph.of("DequantizeLinear") if graph.is_constant(node)]
    axes = [attribute.i for attribute in stored.attribute if attribute.name == "axis"]
    assert axes == [1 if "Transpose" in kind.__name__ else 0]
    assert len(graph.constants[stored.input[1]]) == (8 if "Transpose" in kind.__name__ else 16)
