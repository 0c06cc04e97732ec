"""Pools that torch's exporter writes wrongly, or not at all, are written as torch computes them."""

import copy
import itertools

import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import ExportError
from embedl_deploy.export.pools import (
    adaptive_max_pool_1d,
    adaptive_max_pool_2d,
    adaptive_max_pool_3d,
    average_pool_2d,
    average_pool_3d,
    max_pool_2d,
    max_pool_3d,
)
from support.nets import net, random_input

SETTINGS = [
    {"kernel_size": 2, "divisor_override": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5, "count_include_pad": False},
    {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 7, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "padding": 1, "divisor_override": 2, "ceil_mode": True},  # the last one is left out
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("size", [6, 7, 8, 9])
def test_a_divisor(settings, size):
    maps, volumes = random_input(2, 3, size, size + 2), random_input(2, size, size, size + 1)
    torch.testing.assert_close(average_pool_2d(maps, **settings), F.avg_pool2d(maps, **settings))
    torch.testing.assert_close(average_pool_3d(volumes, **settings), F.avg_pool3d(volumes, **settings))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_divisor_in_a_file(tmp_path, dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(**SETTINGS[2])).eval()
    x = random_input(2, 3, 9, 9)
    result = transform(model, x, backend="tensorrt")
    assert export_onnx(result, x, tmp_path / "m.onnx", dtype=dtype, dynamic_batch=True).difference.max_abs < 1e-2


def test_a_divisor_of_volumes_and_of_a_captured_call_in_a_file(tmp_path):
    model = net(lambda _self, x: F.avg_pool3d(x, 2, divisor_override=3))
    x = random_input(2, 3, 4, 4, 4)
    for each in (model, transform(model, x, patterns=[], trace="export")):
        assert export_onnx(each, x, tmp_path / "m.onnx").difference.max_abs < 1e-5


LAST = {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}  # of 8, the last window starts in the padding


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [*itertools.product([2, 3], [2, 3, 5], [1, 2])])
def test_windows_that_are_rounded_up(kernel, stride, dilation):
    for height, width in itertools.product([6, 7, 8, 9], [7, 8]):
        x = random_input(1, 2, height, width)
        settings = {"kernel_size": kernel, "stride": stride, "padding": 1, "ceil_mode": True}
        spread = {**settings, "dilation": dilation}
        assert torch.equal(max_pool_2d(x, **spread), F.max_pool2d(x, **spread))
        if height == width:
            assert torch.equal(max_pool_3d(x[0][None], **spread), F.max_pool3d(x[0][None], **spread))
        for counted in (True, False):
            named = {**settings, "count_include_pad": counted}
            torch.testing.assert_close(average_pool_2d(x, **named), F.avg_pool2d(x, **named))


def test_indices_of_windows_that_are_rounded_up():
    x = random_input(1, 2, 8, 8)
    found, wanted = (pool(x, **LAST, return_indices=True) for pool in (max_pool_2d, F.max_pool2d))
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("pool", "sizes"),
    [
        (nn.AvgPool1d(**LAST), [8]),
        (nn.AvgPool2d(**LAST, count_include_pad=False), [8, 8]),
        (nn.AvgPool3d(**LAST), [5, 5, 4]),
        (nn.MaxPool1d(**LAST), [8]),
        (nn.MaxPool2d(**LAST), [8, 7]),  # the last window counts in width
        (nn.MaxPool2d(**LAST, return_indices=True), [8, 8]),
    ],
)
def test_a_last_window_in_the_padding_is_left_out_of_a_file(tmp_path, pool, sizes):
    x = random_input(2, 2, *sizes)
    assert export_onnx(pool, x, tmp_path / "m.onnx", dynamic_batch=True).difference.max_abs < 1e-6


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_a_last_window_of_a_captured_call(tmp_path, trace):
    model, x = net(lambda _self, x: F.max_pool2d(x, **LAST) + F.avg_pool2d(x, **LAST)), random_input(2, 2, 8, 7)
    result = transform(model, x, patterns=[], trace=trace)
    assert export_onnx(result, x, tmp_path / "m.onnx").difference.max_abs < 1e-6


@pytest.mark.parametrize("output", [1, 2, 3, 5, 7])
def test_adaptive_maxima(output):
    x = random_input(2, 3, 7, 6, 8)
    pairs = [(adaptive_max_pool_1d, F.adaptive_max_pool1d, x[0, 0], output)]
    pairs += [(adaptive_max_pool_2d, F.adaptive_max_pool2d, x[0], (output, None))]
    pairs += [(adaptive_max_pool_3d, F.adaptive_max_pool3d, x, (output, 2, None))]
    for form, pool, given, size in pairs:
        assert torch.equal(form(given, size), pool(given, size))
        for found, wanted in zip(form(given, size, True), pool(given, size, True), strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("pool", "sizes"),
    [(nn.AdaptiveMaxPool1d(3), [8]), (nn.AdaptiveMaxPool2d((3, None)), [8, 6]), (nn.AdaptiveMaxPool3d(3), [4, 5, 6])],
)
def test_adaptive_maxima_in_a_file(tmp_path, pool, sizes):
    x = random_input(2, 2, *sizes)
    assert export_onnx(pool, x, tmp_path / "m.onnx", dynamic_batch=True).difference.max_abs == 0


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_adaptive_maxima_of_a_captured_call(tmp_path, trace):
    model, x = net(lambda _self, x: F.adaptive_max_pool2d(x, 3)), random_input(2, 2, 8, 7)
    result = transform(model, x, patterns=[], trace=trace)
    assert export_onnx(result, x, tmp_path / "m.onnx", dtype=torch.float16).difference.max_abs < 1e-3


def test_adaptive_maxima_of_an_open_size(tmp_path):
    x, height = random_input(2, 3, 8, 8), torch.export.Dim("height", min=4, max=32)
    shapes = ({2: height},)
    for output in [(1, 3), (None, 3)]:
        pool = nn.AdaptiveMaxPool2d(output)
        assert export_onnx(pool, x, tmp_path / "m.onnx", dynamic_shapes=shapes).difference.max_abs == 0
    with pytest.raises(ExportError, match=r"that of dimension -2 is open: .*in module '0'.*fixed sizes"):
        export_onnx(nn.Sequential(nn.AdaptiveMaxPool2d(3)), x, tmp_path / "m.onnx", dynamic_shapes=shapes)


class Attended(nn.Module):
    """A map of which a global average is taken in the middle, as of squeeze-and-excite, in two or three dimensions."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv, pool = ((nn.Conv2d, nn.AdaptiveAvgPool2d), (nn.Conv3d, nn.AdaptiveAvgPool3d))[axes - 2]
        self.stem, self.scale = conv(3, 8, 1), conv(8, 8, 1)
        self.pool = pool(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardswish(self.stem(x))
        return x * F.hardsigmoid(self.scale(self.pool(x)))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("of_model", [False, True], ids=["input", "model"])
@pytest.mark.parametrize("settings", [{}, {"dynamic_batch": True}], ids=["fixed", "open"])
def test_the_memory_format_leaves_no_trace_in_a_file(axes, of_model, settings, tmp_path):
    x, model = random_input(2, 3, *(4,) * axes), Attended(axes).eval()
    layout = (torch.channels_last, torch.channels_last_3d)[axes - 2]
    operators = []
    other = copy.deepcopy(model).to(memory_format=layout) if of_model else model
    for given, kept in ((x, model), (x.to(memory_format=layout), other)):
        result = transform(kept, given, patterns=[])
        assert export_onnx(result, given, tmp_path / "m.onnx", **settings).difference.max_abs < 1e-5
        operators.append([node.op_type for node in ir.load(tmp_path / "m.onnx").graph])
    assert operators[0] == operators[1]
    assert operators[0].count("ReduceMean") == 1


def test_other_averages_over_windows_that_differ(tmp_path):
    model = net(lambda _self, x: F.adaptive_avg_pool2d(x, (1, 3)) + F.adaptive_avg_pool2d(x, (None, 1)).mean(2, True))
    x = random_input(2, 3, 4, 6)
    assert export_onnx(model, x, tmp_path / "m.onnx").difference.max_abs < 1e-5
