"""Averages over the whole map, in their three spellings."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.nets import net

IMAGE = (2, 4, 8, 8)
POOLS = {
    "module": nn.AdaptiveAvgPool2d(1),
    "pair": nn.AdaptiveAvgPool2d((1, 1)),
    "function": net(lambda m, x: F.adaptive_avg_pool2d(x, 1)),
    "window": nn.AvgPool2d(8),
    "window with stride": nn.AvgPool2d((8, 8), stride=3, ceil_mode=True),
    "window and divisor": nn.AvgPool2d(8, divisor_override=64),
    "mean that keeps": net(lambda m, x: x.mean((2, 3), keepdim=True)),
    "mean by position": net(lambda m, x: torch.mean(x, [-1, -2], True)),
}


@pytest.mark.parametrize("name", POOLS)
def test_matches_and_agrees(name, fuse, kinds, assert_agrees):
    model = nn.Sequential(POOLS[name], nn.Flatten(), nn.Linear(4, 3))
    assert kinds(fuse(model, torch.randn(IMAGE))) == ["SensaiGlobalAveragePool", "Flatten", "SensaiLinear"]
    assert_agrees(model, torch.randn(IMAGE), expect=2)


def test_a_mean_that_drops_dimensions_is_flattened(fuse, kinds, assert_agrees):
    model = net(lambda m, x: m.fc(x.mean((2, 3))), fc=nn.Linear(4, 3))
    result = fuse(model, torch.randn(IMAGE))
    assert kinds(result) == ["SensaiGlobalAveragePool", "Flatten", "SensaiLinear"]
    assert result.report.unsupported == {}
    assert_agrees(model, torch.randn(IMAGE), expect=3)


@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")  # torch, while it copies its own graph
def test_exported_models_count(fuse, kinds):
    model, x = net(lambda m, x: m.fc(x.mean((2, 3))), fc=nn.Linear(4, 3)), torch.randn(IMAGE)
    result = fuse(torch.export.export(model, (x,)).module(), x)
    assert "SensaiGlobalAveragePool" in kinds(result)
    torch.testing.assert_close(result.model(x), model(x))


@pytest.mark.parametrize(
    ("model", "pattern", "reason"),
    [
        (nn.AdaptiveAvgPool2d(2), "GlobalAveragePoolPattern", "output is 2×2; the engine averages over the whole map"),
        (nn.AdaptiveAvgPool2d((1, None)), "GlobalAveragePoolPattern", "output is 1×?; the engine averages over the"),
        (nn.AvgPool2d(7), "AvgPoolToGlobalPoolPattern", "its window is 7×7 with padding 0, and the map is 8×8"),
        (nn.AvgPool2d(8, padding=1), "AvgPoolToGlobalPoolPattern", "its window is 8×8 with padding 1"),
        (nn.AvgPool2d(8, divisor_override=60), "AvgPoolToGlobalPoolPattern", "divides by 60, not by the 64 pixels"),
        (net(lambda m, x: x.mean(1)), "MeanToGlobalPoolPattern", "it averages 2×4×8×8 over [1]; the engine"),
        (net(lambda m, x: x.mean()), "MeanToGlobalPoolPattern", "it averages 2×4×8×8 over [None]; the engine"),
        (
            net(lambda m, x: x.mean((2, 3), dtype=torch.float64)),
            "MeanToGlobalPoolPattern",
            "it also changes the type, to torch.float64",
        ),
    ],
)
def test_declines(model, pattern, reason, fuse, kinds, reasons):
    model, x = nn.Sequential(model), torch.randn(IMAGE)
    assert [given[: len(reason)] for given in reasons(model, pattern, x)] == [reason]
    assert "SensaiGlobalAveragePool" not in kinds(fuse(model, x))
    assert len(fuse(model, x).report.unsupported) == 1


@pytest.mark.parametrize("model", [nn.AvgPool2d(8), net(lambda m, x: x.mean((2, 3)))], ids=["window", "mean"])
def test_declines_an_unknown_shape(model, fuse, kinds):
    result = fuse(nn.Sequential(model))
    assert "SensaiGlobalAveragePool" not in kinds(result)
    assert any("args=" in refusal.reason for refusal in result.report.declined)


def test_a_small_window_stays_right_for_every_size(fuse, kinds):
    """Of two conversions that fit, the one that does not depend on the example's size is taken."""
    model = nn.Sequential(nn.AvgPool2d(2))
    result = fuse(model, torch.randn(2, 4, 2, 2))
    assert kinds(result) == ["SensaiConvBN"]
    larger = torch.randn(IMAGE)
    torch.testing.assert_close(result.model(larger), model(larger))


def test_declines_a_pool_with_hooks(fuse, kinds):
    model, x = nn.Sequential(nn.AvgPool2d(8)), torch.randn(IMAGE)
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    result = fuse(model, x)
    assert kinds(result) == ["AvgPool2d"]
    torch.testing.assert_close(result.model(x), model(x))


def test_values_used_outside_and_outputs_are_kept(fuse):
    def forward(m, x):
        y = x.mean((2, 3))
        return y, y + y, m.pool(x)

    model, x = net(forward, pool=nn.AdaptiveAvgPool2d(1)), torch.randn(IMAGE)
    torch.testing.assert_close(fuse(model, x).model(x), model(x))


def test_a_second_run_changes_nothing(fuse):
    model, x = net(lambda m, x: x.mean((2, 3))), torch.randn(IMAGE)
    first = fuse(model, x)
    assert first.report["applied_count"] == 2
    assert fuse(first.model, x).report["applied_count"] == 0
