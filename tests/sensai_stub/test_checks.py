"""The rules of the engine: each finds what breaks it, and nothing in the backend's own files."""

import pytest
import torch

from embedl_deploy import check, export_onnx, transform
from embedl_deploy.quantize import QuantConfig, quantize
from embedl_deploy_sensai_stub.checks import SENSAI_RULES
from embedl_deploy_sensai_stub.quantization import SENSAI_QUANT_CONFIG
from support.nets import random_input, scrambled
from support.onnx_files import INT8, INT16, OnnxFile

SCALE = 0.0625


def found(file, output):
    return [(finding.rule, finding.message) for finding in check(file.model(output), "sensai").findings]


def fixed_point_conv(file, **attributes):
    weight = file.qdq(file.weight(8, 8, 3, 3), SCALE)
    return file.conv(file.qdq(file.input(1, 8, 6, 6), SCALE), weight, **attributes)


def test_a_fixed_point_convolution_keeps_all_rules():
    file = OnnxFile()
    y = file.node("Relu", fixed_point_conv(file, strides=[2, 2]))
    report = check(file.model(file.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])), "sensai")
    assert report.findings == ()
    assert report.undecided == ()
    assert report.rules_checked == tuple(rule.id for rule in SENSAI_RULES)


def test_scales_are_powers_of_two():
    file = OnnxFile()
    assert (
        found(file, file.qdq(file.input(2, 4), 0.05))
        == [("SENSAI-01", "a scale is 0.05, which is no power of two")] * 2
    )


def test_one_scale_for_a_tensor():
    file = OnnxFile()
    y = file.qdq(file.weight(2, 4), [SCALE, SCALE], axis=0)
    assert found(file, y) == [("SENSAI-02", "2 scales; the engine has one for a tensor")] * 2


def test_signed_numbers_without_offset():
    file = OnnxFile()
    assert found(file, file.qdq(file.input(2, 4), SCALE, INT16)) == [("SENSAI-03", "quantized to INT16")] * 2
    file = OnnxFile()
    x, settings = file.input(2, 4), [file.constant(SCALE), file.constant(3, INT8)]
    assert found(file, file.node("QuantizeLinear", x, *settings)) == [("SENSAI-03", "a zero point is 3")]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda f: f.conv(f.input(1, 8, 6, 6), f.weight(8, 8, 5, 5)),
            "Conv: kernel is 5×5; the engine has 1×1 and 3×3",
        ),
        (
            lambda f: f.conv(f.input(1, 8, 6, 6), f.weight(8, 4, 3, 3), group=2),
            "Conv: 8 to 8 channels in 2 groups; the engine has one group, or depthwise with one filter per channel",
        ),
        (
            lambda f: f.node("Conv", f.input(1, 8, 6), f.weight(8, 8, 3)),
            "Conv: the engine has only two-dimensional convolutions",
        ),
        (
            lambda f: f.node("MaxPool", f.input(1, 8, 6, 6), kernel_shape=[3, 3], strides=[2, 2]),
            "MaxPool: window 3×3 with stride 2×2; the engine has 2×2 with stride 2",
        ),
        (
            lambda f: f.node("MatMul", f.input(1, 4, 8), f.weight(8, 5)),
            "MatMul: its input is 1×4×8; the engine takes one vector per sample",
        ),
        (
            lambda f: f.node("Relu", f.input(1, 8)),
            "Relu: the engine has it only right behind Conv or Gemm or MatMul or Add or BatchNormalization",
        ),
        (
            lambda f: f.node("Sigmoid", f.input(1, 8)),
            "Sigmoid: the engine runs only convolutions with batch norm and ReLU, 2×2 max pooling and linear layers",
        ),
    ],
    ids=["kernel", "groups", "one dimension", "window", "vectors", "lone ReLU", "Sigmoid"],
)
def test_operators(build, message):
    file = OnnxFile()
    assert found(file, build(file)) == [("SENSAI-04", message)]


def test_what_is_not_in_the_file_is_not_judged():
    file = OnnxFile()
    y = file.node("QuantizeLinear", file.input(2, 4), file.input())
    assert [place.rule for place in check(file.model(y), "sensai").undecided] == ["SENSAI-01", "SENSAI-03"]


@pytest.mark.parametrize("integers", [False, True], ids=["float weights", "integer weights"])
def test_nothing_in_own_files(integers, tmp_path):
    x = random_input(4, 3, 8, 8)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    model = scrambled(torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(128, 5))).eval()
    result = transform(model, (x,), backend="sensai")
    good = export_onnx(quantize(result, [x], SENSAI_QUANT_CONFIG), x, tmp_path / "good.onnx", integer_weights=integers)
    assert check(good.path, "sensai").to_dict() == {
        "model": str(good.path),
        "backend": "sensai",
        "ok": True,
        "rules_checked": [rule.id for rule in SENSAI_RULES],
        "findings": [],
        "undecided": [],
    }
    other = export_onnx(quantize(result, [x], QuantConfig()), x, tmp_path / "other.onnx", integer_weights=integers)
    report = check(other.path, "sensai")
    assert {finding.rule for finding in report.findings} == {"SENSAI-01", "SENSAI-02"}
    assert {finding.module for finding in report.findings} >= {"0"}
