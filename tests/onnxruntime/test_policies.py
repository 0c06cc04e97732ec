"""Where the policies object, and what is quantized by them."""

import torch
from torch import nn

import embedl_deploy
from embedl_deploy import export_onnx, transform
from embedl_deploy.numerics import Precision
from embedl_deploy.quantize import QuantConfig, quantization_report, quantize


def quantized_places(net, x, policy):
    result = transform(net.eval(), x, backend="onnxruntime")
    report = quantization_report(quantize(result, [x], QuantConfig(policy=policy), progress=False))
    return {(point.path, point.label): point.rule for point in report.not_quantized}


class Block(nn.Module):
    """A sum of what a product gives with what it reads, as in transformers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.second(x + self.first(x))


def test_activations_have_a_zero_point_and_weights_a_scale_per_channel():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    x = torch.randn(1, 3, 8, 8)
    model = quantize(transform(net.eval(), x, backend="onnxruntime"), [x], progress=False)
    configs = {str(point.config) for point in quantization_report(model).points}
    assert configs == {"UINT8 asymmetric minmax", "INT8 per channel minmax"}
    ends = [part.zero_point for part in model.modules() if getattr(part, "zero_point", None) is not None]
    assert {end.dtype for end in ends} == {torch.uint8}
    assert 0 in {int(end) for end in ends}  # behind the ReLU, which the range cuts off
    assert Precision.UINT8.is_unsigned


def test_sums_of_float_values_stay_in_float_unless_all_is_asked_for():
    x = torch.randn(2, 3, 8)
    left = quantized_places(Block(), x, "mixed")
    assert {path for path, _ in left} == {"add"}
    assert set(left.values()) == {
        "policy onnxruntime's 'mixed': what it reads is in float: integers would only be converted to and fro"
    }
    assert quantized_places(Block(), x, "all") == {}


def test_few_channels_in_a_group_stay_in_float():
    net = nn.Sequential(nn.Conv2d(16, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1))
    left = quantized_places(net, torch.randn(1, 16, 12, 12), "mixed")
    assert {path for path, _ in left} == {"0"}
    assert "groups of 4 channels" in left["0", "input 0"]


def test_transposed_convolutions_stay_in_float():
    net = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3))
    for policy in ("mixed", "all"):
        left = quantized_places(net, torch.randn(1, 4, 8, 8), policy)
        assert {path for path, _ in left} == {"0"}


def drop_path(x, rate, training):
    return x * torch.rand(1) if training and rate else x


torch.fx.wrap("drop_path")


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.first(x)
        return self.second(x + drop_path(self.second(x), 0.1, self.training))


def test_what_is_dropped_in_training_only_comes_out_of_integer_kernels():
    assert quantized_places(Dropping(), torch.randn(1, 4, 6, 6), "mixed") == {}


class Scaled(nn.Module):
    """Sums, products and a concatenation with parameters."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1)
        self.offset, self.factor = nn.Parameter(torch.randn(4, 1, 1)), nn.Parameter(torch.randn(1, 8))

    def forward(self, x):
        x = self.first(x) + self.offset
        return self.second(torch.cat([x, self.offset.expand(1, 4, 6, 6)], 1) * self.factor[:, :, None, None])


class Shifted(nn.Module):
    """A sum and a product with parameters, one of which is sliced."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.offset, self.factor = nn.Parameter(torch.randn(4, 1, 1)), nn.Parameter(torch.randn(1, 4))

    def forward(self, x):
        return self.second((torch.relu(self.first(x)) + self.offset) * self.factor[:, :, None, None])


def test_constants_are_converted_beforehand(tmp_path):
    x = torch.randn(1, 4, 6, 6)
    left = quantized_places(Scaled(), x, "mixed")
    assert {path for path, _ in left} == {"cat", "mul"}  # the parts of a concatenation have no scales of their own
    result = transform(Shifted().eval(), x, backend="onnxruntime")
    quantized = quantize(result, [x], progress=False)
    assert not quantization_report(quantized).not_quantized
    export_onnx(quantized, x, tmp_path / "net.onnx")
    types = [layer.type for layer in embedl_deploy.compile(tmp_path / "net.onnx", backend="onnxruntime").report.layers]
    assert [kind for kind in types if kind.startswith("QLinear")] == [
        "QLinearConv",
        "QLinearAdd",
        "QLinearMul",
        "QLinearConv",
    ]
    assert types.count("QuantizeLinear") == types.count("DequantizeLinear") == 1  # of the input and the output


class Beside(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.second(torch.cat([self.first(x), torch.tanh(x)], 1))


def test_a_concatenation_with_a_tensor_in_float_is_not_quantized():
    for policy in ("mixed", "all"):
        left = quantized_places(Beside(), torch.randn(1, 4, 6, 6), policy)
        assert left == {
            (
                "cat",
                "output",
            ): f"policy onnxruntime's '{policy}': the runtime has no integer kernel for a concatenation "
            "with a tensor in float"
        }
