"""Whole files: nothing in what this project exports that is not so, and ONNX Runtime's bias in INT32."""

import logging

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn
from torch.nn import functional as F

from embedl_deploy import check, export_onnx, transform
from embedl_deploy.backend import CompileOptions, CompilerRefusedError, get_backend
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantize
from support.nets import random_input, scrambled
from support.quantizable import perceptron, residual_block


class Separable(nn.Module):
    """A stem, a depthwise convolution, a SiLU, a sum, pooling and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU())
        self.conv1 = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU())
        self.conv2 = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        y = self.depthwise(self.stem(x))
        y = torch.relu(self.conv2(self.conv1(y)) + y)
        return self.head(self.pool(y).flatten(1))


class Block(nn.Module):
    """A transformer block that normalizes first."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.norm2(x))))


MODELS = {
    "separable": (lambda: scrambled(Separable()).eval(), random_input(2, 3, 16, 16)),
    "residual": (residual_block, random_input(2, 3, 8, 8)),
    "transformer": (lambda: scrambled(nn.Sequential(Block(), nn.Linear(32, 5))).eval(), random_input(2, 8, 32)),
    "perceptron": (perceptron, random_input(6, 12)),
}
FP8 = QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8, per_channel=True))
INT4 = QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4, per_channel=True))
FORMS = {
    "float": (None, {}),
    "int8": (QuantConfig(), {}),
    "int8 mixed": (QuantConfig(policy="mixed"), {"dynamic_batch": True}),
    "int8 float16": (QuantConfig(), {"dtype": torch.float16, "integer_weights": True}),
    "fp8": (FP8, {"integer_weights": True}),
    "fp8 float16": (FP8, {"dtype": torch.float16}),
    "int4 weights": (INT4, {"integer_weights": True}),
}
#: The only thing that is said, and true: the 'all' policy quantizes the depthwise convolution.
DEPTHWISE = [("TRT-Q23", "info", "depthwise.0", "Conv")]


#: Every form of the model with most kinds of layers, and the others in some.
FILES = [
    *(("transformer", form) for form in FORMS),
    *(("separable", form) for form in ("float", "int8", "int8 mixed", "int8 float16", "fp8")),
    *(("residual", "int8"), ("residual", "fp8 float16"), ("perceptron", "int8"), ("perceptron", "int4 weights")),
]


@pytest.mark.parametrize(("name", "form"), FILES, ids=" ".join)
def test_own_exports_keep_all_rules(name, form, tmp_path):
    build, x = MODELS[name]
    config, options = FORMS[form]
    model = transform(build(), x, backend="tensorrt")
    if config is not None:
        model = quantize(model, [x], config)
    report = check(export_onnx(model, x, tmp_path / "m.onnx", tolerance=None, **options).path, "tensorrt")
    said = [(finding.rule, finding.severity.value, finding.module, finding.operator) for finding in report.findings]
    assert said == (DEPTHWISE if name == "separable" and form in ("int8", "int8 float16") else [])
    assert report.undecided == ()
    assert len(report.rules_checked) == 32


class Reader(CalibrationDataReader):
    """One batch."""

    def __init__(self, name, x):
        self.batches = iter([{name: x.numpy()}])

    def get_next(self):
        return next(self.batches, None)


@pytest.fixture
def by_onnxruntime(tmp_path, monkeypatch):
    """Make a file with ONNX Runtime's static quantizer, as its own documentation says for TensorRT."""

    def run(**extra):
        build, x = MODELS["residual"]
        path = export_onnx(build(), x, tmp_path / "float.onnx", tolerance=None).path
        name = onnx.load(path).graph.input[0].name
        monkeypatch.setattr(logging.root, "disabled", True)  # it asks to run another tool first
        quantize_static(
            path,
            tmp_path / "quantized.onnx",
            Reader(name, x),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, **extra},
        )
        return check(tmp_path / "quantized.onnx", "tensorrt")

    return run


def test_onnxruntimes_bias_is_found(by_onnxruntime):
    report = by_onnxruntime()
    assert not report.ok
    biases = [finding for finding in report.findings if finding.rule == "TRT-Q08"]
    assert len(biases) == 4, "three convolutions and the classifier"
    assert {finding.severity.value for finding in biases} == {"error"}
    assert all("a bias in INT32 is dequantized for" in finding.message for finding in biases)
    assert "quantize_static: extra_options={'QuantizeBias': False}" in biases[0].remedy
    assert {finding.rule for finding in report.findings if finding.severity.value == "error"} == {"TRT-Q08"}


def test_the_remedy_mends_it(by_onnxruntime):
    assert by_onnxruntime(QuantizeBias=False).ok


def test_the_compiler_agrees_on_onnxruntimes_bias(by_onnxruntime, tmp_path):
    compiler = next(compiler for compiler in get_backend("tensorrt").compilers if "rtx" in compiler.name)
    if missing := compiler.missing():
        pytest.skip(missing)
    options, path = CompileOptions(target="sm89"), tmp_path / "quantized.onnx"
    by_onnxruntime()
    with pytest.raises(CompilerRefusedError) as refused:
        compiler.build(path, options, lambda *step: None)
    assert any("INT32" in message or "Int32" in message for message in refused.value.messages)
    by_onnxruntime(QuantizeBias=False)
    assert compiler.build(path, options, lambda *step: None).layers


def test_a_quantizer_is_named_by_the_module_that_reads_it(tmp_path):
    build, x = MODELS["perceptron"]
    path = export_onnx(quantize(transform(build(), x, backend="tensorrt"), [x]), x, tmp_path / "m.onnx").path
    proto = onnx.load(path)
    node = next(node for node in proto.graph.node if node.op_type == "QuantizeLinear")
    scale = next(tensor for tensor in proto.graph.initializer if tensor.name == node.input[1])
    scale.CopyFrom(onnx.numpy_helper.from_array(np.zeros((), dtype=np.float32), scale.name))
    finding = check(proto, "tensorrt").findings[0]
    assert (finding.rule, finding.module) == ("TRT-Q02", "first")
