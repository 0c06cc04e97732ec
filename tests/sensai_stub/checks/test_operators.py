"""The rule about operators, and that the backend's own files break no rule."""

import pytest
import torch

from embedl_deploy import check, export_onnx, transform
from embedl_deploy.quantize import QuantConfig, TensorQuantConfig, quantize
from embedl_deploy_sensai_stub.checks import SENSAI_RULES
from embedl_deploy_sensai_stub.limits import ENGINE
from embedl_deploy_sensai_stub.quantization import SENSAI_QUANT_CONFIG
from support.nets import random_input, scrambled
from support.onnx_files import OnnxFile

SCALE = 0.0625


def q(file, value):
    return file.qdq(value, SCALE)


def image(file):
    return q(file, file.input(1, 8, 6, 6))


def conv(file, *weight, **attributes):
    return file.conv(image(file), q(file, file.weight(*weight)), **attributes)


def operators_of(file, output):
    findings = check(file.model(output), "sensai").findings
    assert {finding.rule for finding in findings} <= {"SENSAI-04"}
    return [finding.message for finding in findings]


@pytest.mark.parametrize(
    "build",
    [
        lambda f: f.node("Relu", conv(f, 8, 8, 3, 3)),
        lambda f: f.node("Relu", f.node("Add", image(f), image(f))),
        lambda f: f.node("GlobalAveragePool", image(f)),
        lambda f: f.node("ReduceMean", image(f), axes=[-1, -2]),
        lambda f: f.node("MaxPool", f.input(1, 8, 6, 6), kernel_shape=[2, 2], strides=[2, 2]),
        lambda f: f.node(
            "Relu",
            f.node("Add", f.node("MatMul", q(f, f.input(1, 8)), q(f, f.weight(8, 5))), f.weight(5)),
        ),
    ],
    ids=["convolution", "sum", "global pool", "mean", "max pool", "product with bias"],
)
def test_what_the_engine_has(build):
    file = OnnxFile(opset=17)  # the axes of ReduceMean are an attribute
    assert operators_of(file, build(file)) == []


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: conv(f, 8, 8, 5, 5), "Conv: kernel is 5×5; the engine has 1×1 and 3×3"),
        (
            lambda f: conv(f, 8, 4, 3, 3, group=2),
            "Conv: 8 to 8 channels in 2 groups; the engine has one group, or depthwise with one filter per channel",
        ),
        (
            lambda f: f.node("Conv", q(f, f.input(1, 8, 6)), q(f, f.weight(8, 8, 3))),
            "Conv: the engine has only two-dimensional convolutions",
        ),
        (
            lambda f: f.node("MaxPool", f.input(1, 8, 6, 6), kernel_shape=[3, 3], strides=[2, 2]),
            "MaxPool: window 3×3 with stride 2×2; the engine has 2×2 with stride 2",
        ),
        (
            lambda f: f.node("MatMul", q(f, f.input("n", 4, 8)), q(f, f.weight(8, 5))),
            "MatMul: its input is ?×4×8; the engine takes one vector per sample",
        ),
        (
            lambda f: f.node("Gemm", q(f, f.input(1, 8)), q(f, f.weight(8, 5)), alpha=0.5),
            "Gemm: alpha is 0.5; the engine has 1",
        ),
        (
            lambda f: f.node("Add", image(f), q(f, f.input(1, 8, 1, 1))),
            "Add: it adds 1×8×6×6 and 1×8×1×1; the engine adds maps of one shape",
        ),
        (
            lambda f: f.node("Add", image(f), f.weight(8, 1, 1)),
            "Add: the engine supports it only directly after MatMul",
        ),
        (
            lambda f: f.node("ReduceMean", image(f), axes=[1]),
            "ReduceMean: it averages 1×8×6×6 over [1]; the engine averages (N, C, H, W) over H and W",
        ),
        (
            lambda f: f.node("Relu", f.input(1, 8)),
            "Relu: the engine supports it only directly after Conv or Gemm or MatMul or Add",
        ),
        (
            lambda f: f.node("BatchNormalization", image(f), *(f.weight(8) for _ in range(4))),
            "BatchNormalization: the engine has it as part of a convolution's weight; export_onnx folds it when it is "
            "quantized",
        ),
        (lambda f: f.node("Sigmoid", f.input(1, 8)), f"Sigmoid: {ENGINE}"),
    ],
    ids=[
        *("kernel", "groups", "one dimension", "window", "vectors", "factor", "broadcast", "constant", "channels"),
        *("lone ReLU", "batch norm", "Sigmoid"),
    ],
)
def test_what_it_has_not(build, message):
    file = OnnxFile(opset=17)
    assert operators_of(file, build(file)) == [message]


def test_a_relu_behind_a_result_that_is_read_twice_is_alone():
    file = OnnxFile(opset=17)
    y = conv(file, 8, 8, 3, 3)
    both = file.model(file.node("Relu", y), file.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    (finding,) = check(both, "sensai").findings
    assert finding.message.startswith("Relu: the engine supports it only directly after")


@pytest.mark.parametrize("integers", [False, True], ids=["float weights", "integer weights"])
def test_nothing_in_own_files(integers, tmp_path):
    x = random_input(4, 3, 8, 8)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    head = [torch.nn.BatchNorm2d(8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5)]
    model = scrambled(torch.nn.Sequential(*layers, *head)).eval()
    result = transform(model, (x,), backend="sensai")
    good = export_onnx(quantize(result, [x], SENSAI_QUANT_CONFIG), x, tmp_path / "good.onnx", integer_weights=integers)
    assert check(good.path, "sensai").to_dict() == {
        "model": str(good.path),
        "backend": "sensai",
        "ok": True,
        "rules_checked": [rule.id for rule in SENSAI_RULES],
        "rules_failed": [],
        "findings": [],
        "undecided": [],
    }
    other = export_onnx(
        quantize(result, [x], QuantConfig(TensorQuantConfig(), TensorQuantConfig(per_channel=True))),
        x,
        tmp_path / "other.onnx",
        integer_weights=integers,
    )
    report = check(other.path, "sensai")
    assert {finding.rule for finding in report.findings} == {"SENSAI-01", "SENSAI-02"}
    assert {finding.module for finding in report.findings} >= {"0"}
