"""Average pooling as a depthwise convolution."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.quantize import freeze, quantize
from embedl_deploy_sensai_stub.patterns.avg_pool import averaging_conv
from embedl_deploy_sensai_stub.quantization import SENSAI_QUANT_CONFIG
from support.nets import scrambled

IMAGE = (2, 4, 9, 8)
NAME = "AvgPoolToDepthwiseConvPattern"


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(2, stride=1),
        nn.AvgPool2d(3, stride=2),
        nn.AvgPool2d(3, stride=1, padding=1),
        nn.AvgPool2d(2, padding=1),
        nn.AvgPool2d((2, 3), stride=2, padding=(0, 1)),
        nn.AvgPool2d(3, stride=2, padding=1, divisor_override=5, count_include_pad=False),
        nn.AvgPool2d(2, count_include_pad=False),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(9, 8), (8, 9), (5, 5), (4, 4)])
def test_is_a_convolution(pool, size):
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    conv = averaging_conv(pool, 4, torch.float64)
    torch.testing.assert_close(conv(x), pool(x), rtol=0, atol=1e-15)


def test_matches_and_agrees(fuse, kinds, assert_agrees):
    model, x = nn.Sequential(nn.Conv2d(4, 4, 3), nn.AvgPool2d(2), nn.ReLU()), torch.randn(IMAGE)
    assert kinds(fuse(model, x)) == ["SensaiConvBN", "SensaiConvBNReLU"]
    assert_agrees(model, x, expect=3)


def test_functional_form_counts(fuse, kinds, assert_agrees):
    class Functional(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x, 3, 1, 1)

    x = torch.randn(IMAGE)
    assert kinds(fuse(Functional(), x)) == ["SensaiConvBN"]
    assert_agrees(Functional(), x)


def test_takes_explicit_padding_too(fuse, kinds, assert_agrees):
    model, x = nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.AvgPool2d(2, 1)), torch.randn(IMAGE)
    assert kinds(fuse(model, x)) == ["SensaiConvBN"]
    assert_agrees(model, x, expect=3)


def test_takes_an_unbatched_map(fuse):
    model, x = nn.Sequential(nn.AvgPool2d(2)), torch.randn(4, 9, 8)
    result = fuse(model, x)
    assert result.report["applied_count"] == 2
    torch.testing.assert_close(result.model(x), model(x))


def test_learns_nothing(fuse):
    result = fuse(nn.Sequential(nn.AvgPool2d(2)).train(), torch.randn(IMAGE))
    assert [(tuple(p.shape), p.requires_grad) for p in result.model.parameters()] == [((4, 1, 3, 3), False)]


def test_keeps_half_precision(fuse):
    model, x = nn.Sequential(nn.AvgPool2d(2)).to(torch.bfloat16), torch.randn(IMAGE, dtype=torch.bfloat16)
    result = fuse(model, x)
    assert result.model(x).dtype is torch.bfloat16
    torch.testing.assert_close(result.model(x), model(x))


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (nn.AvgPool2d(4), "window is 4×4"),
        (nn.AvgPool2d(1), "window is 1×1"),
        (nn.AvgPool2d(3), "stride is 3×3"),
        (nn.AvgPool2d(2, stride=(1, 2)), "stride is 1×2"),
        (nn.AvgPool2d(2, ceil_mode=True), "ceil_mode"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), "count_include_pad=False"),
    ],
)
def test_declines_what_is_no_convolution_of_the_engine(pool, reason, fuse, kinds, reasons):
    model, x = nn.Sequential(pool), torch.randn(IMAGE)
    (given,) = reasons(model, NAME, x)
    assert reason in given
    result = fuse(model, x)
    assert kinds(result) == ["AvgPool2d"]
    (unsupported,) = result.report.unsupported.values()
    assert unsupported.partition(". Exact rewrite: ")[0] == f"AvgPool2d: {given}"


def test_declines_an_unknown_number_of_channels(fuse, reasons):
    model = nn.Sequential(nn.AvgPool2d(2))
    assert reasons(model, NAME) == ["the number of channels is unknown: pass example inputs, args="]
    (reason,) = fuse(model).report.unsupported.values()
    assert reason.startswith("AvgPool2d: the engine averages by a depthwise convolution")


def test_declines_a_pool_with_hooks(fuse, kinds, reasons):
    model, x = nn.Sequential(nn.AvgPool2d(2)), torch.randn(IMAGE)
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    assert reasons(model, NAME, x) == ["hooks on the pool would be lost"]
    result = fuse(model, x)
    assert kinds(result) == ["AvgPool2d"]
    torch.testing.assert_close(result.model(x), model(x))


def test_values_used_outside_and_outputs_are_kept(fuse):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.AvgPool2d(2)

        def forward(self, x):
            y = self.pool(x)
            return y, y.relu() + y, self.pool(y)

    model, x = Twice(), torch.randn(IMAGE)
    result = fuse(model, x)
    assert [m.pattern_name for m in result.report.matches].count(NAME) == 2
    torch.testing.assert_close(result.model(x), model(x))


def test_one_pool_on_maps_of_different_width(fuse):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.conv = nn.AvgPool2d(2), nn.Conv2d(4, 6, 1)

        def forward(self, x):
            return self.pool(self.conv(self.pool(x)))

    model, x = Shared(), torch.randn(IMAGE)
    result = fuse(model, x)
    weights = [parameter for parameter in result.model.parameters() if not parameter.requires_grad]
    assert sorted(tuple(weight.shape) for weight in weights) == [(4, 1, 3, 3), (6, 1, 3, 3)]
    torch.testing.assert_close(result.model(x), model(x))


@pytest.mark.parametrize("layers", [(), (nn.BatchNorm2d(4),)], ids=["alone", "with batch norm"])
def test_quantized_it_can_be_frozen_and_saved(layers, fuse):
    model, x = scrambled(nn.Sequential(nn.AvgPool2d(2), *layers)).eval(), torch.randn(IMAGE)
    quantized = quantize(fuse(model, x), [x], SENSAI_QUANT_CONFIG, progress=False)
    for weights in (False, True):
        frozen = freeze(quantized, weights=weights)
        torch.testing.assert_close(frozen(x), quantized(x))
        again = copy.deepcopy(frozen)
        for tensor in again.parameters():
            tensor.data.zero_()
        again.load_state_dict(frozen.state_dict())
        torch.testing.assert_close(again(x), frozen(x), rtol=0, atol=0)


def test_a_second_run_changes_nothing(fuse, kinds):
    x = torch.randn(IMAGE)
    first = fuse(nn.Sequential(nn.AvgPool2d(2)), x)
    second = fuse(first.model, x)
    assert second.report["applied_count"] == 0
    assert kinds(second) == kinds(first) == ["SensaiConvBN"]
