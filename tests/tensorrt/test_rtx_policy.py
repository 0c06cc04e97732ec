"""What the policy ``rtx`` leaves in float, and that TensorRT for RTX then moves fewer bytes."""

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from embedl_deploy import compile, export_onnx, transform  # noqa: A004
from embedl_deploy.backend import PointKind, QuantPoint
from embedl_deploy.engine import LayerKind
from embedl_deploy.errors import QuantizationError
from embedl_deploy.modules import symbolic_trace
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, insert_qdq, quantization_report, quantize
from embedl_deploy.tensorrt.compilers import TensorRTForRTX
from embedl_deploy.tensorrt.modules import FusedLinear
from embedl_deploy.tensorrt.rtx_policy import quantize_for_rtx
from support.nets import net, random_input

FP8 = {"activation": TensorQuantConfig(Precision.FP8), "weight": TensorQuantConfig(Precision.FP8, per_channel=True)}
MISSING = TensorRTForRTX().missing()
TOKENS = random_input(2, 5, 8)
WRITES_FP8 = "in float the product and its activation are one kernel, which may write FP8"


def found(model, formats=None, x=None):
    """Paths of modules with quantized weights, and the reasons for those in float."""
    result = transform(model.eval(), x, backend="tensorrt")
    report = quantization_report(insert_qdq(result.model, result.matches, QuantConfig(policy="rtx", **(formats or {}))))
    weights = [point for point in report.points if point.label == "weight"]
    quantized = [point.path for point in weights if point.quantized]
    prefix = "policy tensorrt's 'rtx': "
    return quantized, {point.path: point.rule.removeprefix(prefix) for point in weights if not point.quantized}


def mlp(*between):
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), *between, nn.Linear(16, 8))


@pytest.mark.parametrize("between", [(), (nn.Dropout(0.5),)], ids=["next to each other", "with dropout between"])
def test_in_fp8_the_product_with_the_activation_writes_fp8(between):
    last = str(2 + len(between))
    assert found(mlp(*between), FP8) == ([last], {"0": WRITES_FP8})


@pytest.mark.parametrize(
    ("activation", "weight"),
    [
        (None, TensorQuantConfig(Precision.INT4, block_size=8)),
        (None, TensorQuantConfig(Precision.NVFP4)),
        (TensorQuantConfig(Precision.NVFP4), TensorQuantConfig(Precision.NVFP4)),
    ],
    ids=str,
)
def test_weights_alone_and_products_in_blocks_are_quantized_wherever_they_are(activation, weight):
    assert found(mlp(), {"activation": activation, "weight": weight}) == (["0", "2"], {})


def test_in_int8_no_product_can_write_it():
    quantized, reasons = found(nn.Sequential(*mlp(), nn.LayerNorm(8), nn.Linear(8, 8)))
    assert quantized == ["4"]
    assert reasons == {
        "0": "in float the product and its activation are one kernel",
        "2": "what it reads is written in float, by a product and its activation in one kernel",
    }


def test_of_a_row_of_products_every_second_reads_fp8():
    linears = [part for _ in range(5) for part in (nn.Linear(8, 8), nn.ReLU())]
    quantized, reasons = found(nn.Sequential(*linears), FP8)
    assert quantized == ["0", "4", "8"]
    assert reasons == {"2": WRITES_FP8, "6": WRITES_FP8}


def test_a_row_may_be_long():
    graph_module = symbolic_trace(nn.Sequential(*(FusedLinear(nn.Linear(2, 2)) for _ in range(1500))))
    calls = [node for node in graph_module.graph.nodes if node.op == "call_module"]
    for node, reason in zip(calls[:3], (WRITES_FP8, None, WRITES_FP8), strict=True):
        module = graph_module.get_submodule(node.target)
        point = QuantPoint(node, node.target, module, PointKind.INPUT, precision=Precision.FP8.value)
        assert quantize_for_rtx(point) == reason


def test_where_a_row_forks_each_end_counts():
    """The second is read by the third, which quantizes, and by the fourth, which in float writes for the fifth."""
    parts = {name: nn.Linear(8, 8) for name in "abcde"}
    model = net(lambda m, x: (m.c(y := m.b(m.a(x))), m.e(m.d(y))), **parts)
    assert found(model, FP8) == (["b", "c", "e"], {"a": WRITES_FP8, "d": WRITES_FP8})


def test_a_product_that_something_in_float_reads_too_is_quantized():
    model = net(lambda m, x: m.b(y := torch.relu(m.a(x))) + y, a=nn.Linear(8, 8), b=nn.Linear(8, 8))
    assert found(model, FP8) == (["a", "b"], {})


@pytest.mark.parametrize(("formats", "projected"), [(None, False), (FP8, True)], ids=["INT8", "FP8"])
def test_the_result_of_attention_with_a_bias(formats, projected):
    model = net(lambda m, x: m.attn(x), attn=ShiftedWindowAttention(8, [3, 3], [1, 1], 2))
    quantized, reasons = found(model, formats, random_input(1, 6, 6, 8))
    assert ("attn.in_proj" in quantized, "attn.out_proj" in quantized) == (True, projected)
    if not projected:
        reason = "attention with a bias computes in float, and quantizing its result moves it once more"
        assert reasons == {"attn.out_proj": reason}


def test_convolutions_stay_in_float():
    with pytest.raises(QuantizationError, match="lets a quantized convolution write float32"):
        quantize(
            transform(nn.Conv2d(8, 8, 3).eval(), backend="tensorrt"),
            [random_input(2, 8, 6, 6)],
            QuantConfig(policy="rtx"),
        )


def engine(result, x, path, config=None):
    model = result if config is None else quantize(result, [x], config, progress=False)
    export_onnx(model, x, path, dtype=torch.float16, tolerance=None)
    return compile(path, backend="tensorrt", compiler="tensorrt-rtx", target="sm89", progress=False).report


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_the_engine_moves_fewer_bytes_than_in_float16_and_with_everything_quantized(tmp_path):
    model = nn.Sequential(nn.LayerNorm(768), nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768)).eval()
    x = random_input(1, 197, 768)
    result = transform(model, x, backend="tensorrt")
    reports = {
        "float16": engine(result, x, tmp_path / "half.onnx"),
        "all": engine(result, x, tmp_path / "all.onnx", QuantConfig(policy="all", **FP8)),
        "rtx": engine(result, x, tmp_path / "rtx.onnx", QuantConfig(policy="rtx", **FP8)),
    }
    moved = {name: report.activation_bytes for name, report in reports.items()}
    assert moved["rtx"] < 0.85 * min(moved["float16"], moved["all"])
    first = next(layer for layer in reports["rtx"].layers if layer.kind is LayerKind.GEMM)
    assert [tensor.dtype for tensor in (*first.inputs, *first.outputs)] == ["float16", "float8_e4m3"]
