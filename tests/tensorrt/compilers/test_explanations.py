"""What a user is told about models that TensorRT takes in part or not at all: from PyTorch to the explanation."""

import pytest
import torch
from torch import nn

from embedl_deploy import check, compile, export_onnx, transform  # noqa: A004
from embedl_deploy.engine import LayerKind
from embedl_deploy.errors import CompileError
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantize
from embedl_deploy.tensorrt.compilers import TensorRTForRTX
from support.nets import random_input, scrambled

MISSING = TensorRTForRTX().missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
IMAGE = random_input(1, 8, 16, 16)
FP8 = TensorQuantConfig(Precision.FP8)


@pytest.fixture
def explained(tmp_path):
    """Quantize, export, check and compile: the check's report and the engine's."""

    def run(model, x, config=None, **options):
        result = transform(scrambled(model).eval(), x, backend="tensorrt")
        path = tmp_path / "net.onnx"
        export_onnx(quantize(result, [x], config, progress=False) if config else result, x, path, **options)
        return check(path, "tensorrt"), compile(path, backend="tensorrt", target="sm89").report

    return run


def test_an_operator_that_tensorrt_has_not(explained, tmp_path):
    class Unique(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x):
            return torch.unique(self.linear(x))

    with pytest.raises(CompileError) as caught:
        explained(Unique(), random_input(4, 8))
    assert caught.value.rules == ("TRT-O01",)
    assert "(Unique)" in str(caught.value)
    assert "Rule TRT-O01: TensorRT for RTX 1.7.1.116 does not take Unique: " in str(caught.value)
    assert "What to do: Write the model without" in str(caught.value)


def test_a_grouped_convolution_without_int8_kernels(explained):
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=2))
    checked, report = explained(model, IMAGE, QuantConfig())
    assert checked.ok
    (found,) = report.float_layers
    assert found.module.startswith("2")
    assert found.reason == (
        "not quantized: TensorRT has no INT8 kernel for 2 groups of 4 input and 6 output channels; both must be "
        "multiples of 4"
    )


def test_a_transposed_convolution(explained):
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3))
    checked, report = explained(model, IMAGE, QuantConfig())
    assert checked.ok
    (found,) = report.float_layers
    assert found.module == "2.conv"
    assert "no kernel for a quantized transposed convolution" in found.reason


def test_a_concatenation_of_branches_of_different_scale(explained):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1)

        def forward(self, x):
            return self.c(torch.cat([torch.relu(self.a(x)), 10 * torch.relu(self.b(x))], 1))

    checked, report = explained(Branches(), IMAGE, QuantConfig())
    assert checked.ok  # one quantizer behind the concatenation, none before it
    assert report.weighted_by_precision == {(LayerKind.CONVOLUTION, "int8"): 3}


def test_an_fp8_stem_over_three_channels(explained):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    config = QuantConfig(FP8, TensorQuantConfig(Precision.FP8, per_channel=True))
    x = random_input(1, 3, 16, 16)
    checked, report = explained(model, x, config, dtype=torch.float16)
    assert not checked.findings
    (found,) = report.float_layers
    assert (
        found.reason
        == "not quantized: policy tensorrt's 'all': TensorRT has no FP8 kernel for a convolution over 3 channels"
    )

    def everywhere(point):
        return None

    checked, _ = explained(
        model, x, QuantConfig(config.activation, config.weight, policy=everywhere), dtype=torch.float16
    )
    assert [(finding.rule, finding.module) for finding in checked.findings] == [("TRT-Q24", "0")]
