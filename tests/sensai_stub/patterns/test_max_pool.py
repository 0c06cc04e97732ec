"""Max pooling."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

IMAGE = (2, 4, 9, 9)


class FunctionalPool(nn.Module):
    def forward(self, x):
        return F.max_pool2d(x, 2)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d((2, 2), stride=(2, 2)), FunctionalPool()])
def test_matches_and_agrees(pool, fuse, kinds, assert_agrees):
    model = nn.Sequential(pool)
    assert kinds(fuse(model)) == ["SensaiMaxPool"]
    assert_agrees(model, torch.randn(IMAGE))


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (nn.MaxPool2d(3, 2, 1), "window 3×3 with stride 2×2; the engine has 2×2 with stride 2"),
        (nn.MaxPool2d(2, 1), "window 2×2 with stride 1×1; the engine has 2×2 with stride 2"),
        (nn.MaxPool2d(2, padding=1), "padding 1"),
        (nn.MaxPool2d(2, dilation=2), "dilation 2"),
        (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode"),
        (nn.MaxPool2d(2, return_indices=True), "return_indices"),
    ],
)
def test_declines_what_the_engine_cannot_run(pool, reason, fuse, kinds, reasons):
    model = nn.Sequential(pool)
    (given,) = reasons(model, "MaxPoolPattern")
    assert reason in given
    result = fuse(model)
    assert kinds(result) == ["MaxPool2d"]
    assert any("declined" in line and reason in line for line in result.report.why_not("0"))
    (unsupported,) = result.report.unsupported.values()
    assert unsupported == f"MaxPool2d: {given}"


def test_a_value_used_outside_is_kept(fuse, kinds):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            y = self.pool(x)
            return y.flatten(1), y

    model, x = Twice(), torch.randn(IMAGE)
    result = fuse(model)
    assert kinds(result) == ["SensaiMaxPool", "flatten"]
    torch.testing.assert_close(result.model(x), model(x), rtol=0, atol=0)


def test_a_second_run_changes_nothing(fuse):
    first = fuse(nn.Sequential(nn.MaxPool2d(2)))
    assert (first.report["applied_count"], fuse(first.model).report["applied_count"]) == (1, 0)
