"""What the runtime makes of blocks of networks: its own optimized model's kernels, and numbers that are still right."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import compile, export_onnx, transform  # noqa: A004
from embedl_deploy.numerics import QuantConfig
from embedl_deploy.patterns import Applied
from embedl_deploy.quantize import quantize

X = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))
MAPS = {"QLinearConv", "QuantizeLinear", "DequantizeLinear", "Transpose"}


def kernels(tmp_path, net, x=X, policy="mixed"):
    """The kernels of a net by their names; its file gives what the quantized model does."""
    torch.manual_seed(0)
    result = transform(net.eval(), x, backend="onnxruntime")
    quantized = quantize(result, [x], QuantConfig(policy=policy), progress=False)
    written = export_onnx(quantized, x, tmp_path / "net.onnx")
    assert written.sqnr is None or written.sqnr > 40
    report = compile(tmp_path / "net.onnx", backend="onnxruntime", threads=1, progress=False).report
    return Counter(layer.type.partition(".")[2] or layer.type for layer in report.layers)


def norm(channels):
    made = nn.BatchNorm2d(channels)
    with torch.no_grad():
        made.weight.copy_(torch.linspace(-1, 1, channels))
        made.weight[0], made.weight[1] = 0.0, 1e-12  # channels that are constant, or nearly
        made.bias.copy_(torch.linspace(-2, 2, channels))
        made.running_mean.copy_(torch.linspace(0, 1, channels))
        made.running_var.copy_(torch.linspace(0.5, 2, channels))
    return made


class Dense(nn.Module):
    """A block of DenseNet: a norm and a ReLU before the convolution, behind a concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(8, 8, 3, padding=1), norm(16), nn.Conv2d(16, 8, 1)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.pool(self.second(torch.relu(self.norm(torch.cat([x, self.first(x)], 1)))))


def test_a_norm_before_the_convolution_is_one(tmp_path):
    found = kernels(tmp_path, nn.Sequential(Dense(), nn.Conv2d(8, 8, 1)))
    assert found["QLinearConv"] == 6, "three convolutions and the last, the norm, and the pool"
    assert found["QLinearConcat"] == 1
    assert set(found) <= MAPS | {"QLinearConcat"} and found["QuantizeLinear"] == 1


@pytest.mark.parametrize("pool", [nn.AvgPool2d(3, 1, padding=1), nn.AvgPool2d((2, 3), (1, 2)), nn.AvgPool2d(2)])
def test_an_average_over_windows_is_a_convolution(tmp_path, pool):
    found = kernels(tmp_path, nn.Sequential(nn.Conv2d(8, 8, 1), pool, nn.Conv2d(8, 4, 1)))
    assert found["QLinearConv"] == 3 and set(found) <= MAPS


def test_windows_of_different_sizes_stay_a_pool(tmp_path):
    pool = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)
    found = kernels(tmp_path, nn.Sequential(nn.Conv2d(8, 8, 1), pool, nn.Conv2d(8, 4, 1)))
    assert found["QLinearConv"] == 2 and found["AveragePool"] == 1 and not found["QLinearAveragePool"]


class Shuffled(nn.Module):
    """A block of ShuffleNet: half of the channels pass by, and all are exchanged."""

    def __init__(self):
        super().__init__()
        self.before, self.branch, self.after = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        left, right = torch.relu(self.before(x)).chunk(2, 1)
        both = torch.cat([left, torch.relu(self.branch(right))], 1)
        shuffled = both.view(both.shape[0], 2, 4, *both.shape[2:]).transpose(1, 2).reshape(both.shape)
        return self.after(shuffled)


def test_what_moves_values_moves_integers(tmp_path):
    found = kernels(tmp_path, Shuffled())
    assert found["QLinearConcat"] == 1 and found["QLinearConv"] == 3
    assert not found["Concat"]


def padded(mode, value=None):
    return Applied(lambda x: nn.functional.pad(x, (1, 0, 2, 1), mode, value))


PADS = {
    "zeros": padded("constant"),
    "reflection": padded("reflect"),
    "around": padded("circular"),
    "zeros, a module": nn.ZeroPad2d((0, 1, 2, 0)),
    "edge, a module": nn.ReplicationPad2d(1),
}


@pytest.mark.parametrize("pad", PADS.values(), ids=PADS)
def test_padding_by_zeros_or_values_pads_integers(tmp_path, pad):
    # behind hardswish zero is not the smallest number, so its integer is not 0
    found = kernels(
        tmp_path, nn.Sequential(nn.Conv2d(8, 8, 3), nn.Hardswish(), pad, nn.AvgPool2d(2), nn.Conv2d(8, 4, 1))
    )
    assert found["QLinearConv"] == 3 and found["Pad"]
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1  # of the input and the output


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_a_convolution_that_pads_by_values_runs_in_integers(tmp_path, mode):
    found = kernels(tmp_path, nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3, padding=(1, 2), padding_mode=mode)))
    assert found["QLinearConv"] == 2 and found["Pad"]
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1


def test_other_numbers_stay_in_float(tmp_path):
    found = kernels(tmp_path, nn.Sequential(nn.Conv2d(8, 8, 1), nn.ConstantPad2d(1, 0.3), nn.Conv2d(8, 4, 1)))
    assert found["QLinearConv"] == 2 and found["DequantizeLinear"] == 2  # before the Pad, too


class Grouped(nn.Module):
    """Attention whose queries share keys and values, two and two, as language models have it."""

    def __init__(self, repeat):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 8), nn.Linear(16, 8)
        self.repeat = repeat

    def forward(self, x):
        q, k, v = (part(x).unflatten(-1, (-1, 4)).transpose(1, 2) for part in (self.q, self.k, self.v))
        k, v = self.repeat(k), self.repeat(v)
        weights = torch.softmax(torch.tanh(q @ k.transpose(-1, -2)), -1)  # soft capping: no attention of torch's own
        return (weights @ v).transpose(1, 2).flatten(2)


def expanded(x):
    return x[:, :, None].expand(-1, -1, 2, -1, -1).reshape(x.shape[0], -1, *x.shape[2:])


def tiled(x):
    return x.repeat(1, 2, 1, 1)


@pytest.mark.parametrize("repeat", [expanded, tiled])
def test_keys_that_are_repeated_are_repeated_as_integers(tmp_path, repeat):
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
    found = kernels(tmp_path, Grouped(repeat), x, policy="all")
    products = [kind for kind in found if "MatMul" in kind or "Gemm" in kind]
    assert sum(found[kind] for kind in products) == 5
    assert not {"MatMul", "FusedMatMul", "Gemm"} & set(products), products


class Meeting(nn.Module):
    """A block of Inception, and what ends many networks."""

    def __init__(self):
        super().__init__()
        self.stem, self.side = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.one, self.two = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)
        self.pool, self.last = nn.MaxPool2d(3, 1, padding=1), nn.Linear(16, 10)

    def forward(self, x):
        x = torch.cat([torch.relu(self.stem(x)), torch.relu(self.side(x))], 1)
        x = torch.cat([torch.relu(self.one(x)), self.two(self.pool(x))], 1)
        return self.last(x.mean([2, 3]))


def test_a_concatenation_that_a_pool_reads_too(tmp_path):
    found = kernels(tmp_path, Meeting())
    assert found["QLinearConv"] == 4 and found["NhwcMaxPool"] == 1 and found["QGemm"] == 1
    assert found["QLinearGlobalAveragePool"] == 1 and not found["ReduceMean"] and not found["GlobalAveragePool"]


@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU6(), nn.Identity()], ids=lambda act: type(act).__name__)
def test_a_weight_that_is_left_in_float_stays_there(tmp_path, act):
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=2), act, nn.Conv2d(8, 4, 1))
    found = kernels(tmp_path, net)
    assert found["QLinearConv"] == 2, "and that of four channels a group is in float"
    assert found["Conv"] + found["FusedConv"] == 1
    assert kernels(tmp_path, net, policy="all")["QLinearConv"] == 3


class Computed(nn.Module):
    """The bias of the attention in Swin V2, whose keys have none."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(24, 8)), nn.Parameter(torch.randn(24))

    def forward(self, x):
        q, k, v = self.bias.chunk(3)
        return F.gelu(F.linear(x, self.weight, torch.cat((q, torch.zeros_like(k), v))))


def test_a_bias_that_is_computed_from_constants(tmp_path):
    found = kernels(tmp_path, Computed(), torch.randn(2, 6, 8))
    assert found["QGemm"] == 1 and not found["Gemm"]


class ReadTwice(nn.Module):
    """A product whose result one reads in integers and one in float."""

    def __init__(self, bias):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8, bias=bias), nn.Linear(8, 8)

    def forward(self, x):
        y = self.first(x)
        return self.second(y), torch.tanh(y)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(4, 8), (2, 6, 8), (2, 3, 4, 8)])
def test_a_product_that_is_read_in_float_too(tmp_path, bias, shape):
    found = kernels(tmp_path, ReadTwice(bias), torch.randn(shape))
    assert found["QGemm"] + found["MatMulIntegerToFloat"] == 2
    assert not found["Gemm"] and not found["MatMul"]
