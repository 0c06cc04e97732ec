"""Windows that torch's exporter writes wrongly are written as torch computes them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import export_onnx, transform
from embedl_deploy.export.windows import average_pool_2d, average_pool_3d
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


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_a_map_without_a_batch_is_unfolded(tmp_path, trace):
    model, x = net(lambda _self, x: F.unfold(x, 3, padding=1, stride=2)), random_input(2, 7, 8)
    assert export_onnx(transform(model, x, patterns=[], trace=trace), x, tmp_path / "m.onnx").difference.max_abs == 0
