"""Questions about the number of dimensions do not stand in the way of fusions."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.conversions import HoistRankQueryPattern
from support.nets import net, random_input
from support.small_patterns import ConvAddActPattern, ConvBNActPattern, ConvPattern

PATTERNS = [HoistRankQueryPattern(), ConvBNActPattern()]
ALL_PATTERNS = [HoistRankQueryPattern(), ConvAddActPattern(), ConvBNActPattern(), ConvPattern()]


class CheckedBatchNorm(nn.BatchNorm2d):
    """Checks its input before it normalizes, as layers with an activation of their own do."""

    def forward(self, x):
        torch._assert(x.ndim == 4, "expected four dimensions")
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)


def test_checked_layers_fuse():
    net = nn.Sequential(
        nn.Conv2d(4, 4, 1), CheckedBatchNorm(4), nn.ReLU(), nn.Conv2d(4, 4, 1), CheckedBatchNorm(4), nn.ReLU()
    )
    result = transform(net.eval(), patterns=PATTERNS)
    assert [m["pattern"] for m in result.report["applied"]].count("ConvBNActPattern") == 2
    assert result.verify(torch.randn(2, 4, 3, 3)).max_abs == 0
    assert transform(result.model, patterns=PATTERNS).report["applied_count"] == 0


def test_the_check_still_checks():
    net = nn.Sequential(nn.Conv2d(4, 4, 1), CheckedBatchNorm(4), nn.ReLU()).eval()
    model = transform(net, patterns=PATTERNS).model
    with pytest.raises(AssertionError, match="expected four dimensions"):
        model(torch.randn(4, 3, 3))


@pytest.mark.parametrize("ask", [lambda x: x.ndim, lambda x: x.dim(), lambda x: x.ndimension()])
def test_spellings(ask):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return F.relu(y) * ask(y)

    result = transform(Net().eval(), patterns=PATTERNS)
    assert result.report["applied_count"] == 2
    assert result.verify(torch.randn(2, 4, 3, 3)).max_abs == 0


def test_operators_that_change_the_rank_are_not_passed():
    class Net(nn.Module):
        def forward(self, x):
            y = torch.flatten(x, 1)
            return F.relu(y) * y.ndim

    result = transform(Net(), patterns=PATTERNS)
    assert result.report["applied_count"] == 0
    assert result.verify(torch.randn(2, 4, 3, 3)).max_abs == 0


class Residual(nn.Module):
    """Two blocks of which each checks what the one before gives, and a head that checks, too."""

    def __init__(self, add):
        super().__init__()
        self.add = add
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))
        self.norms = nn.ModuleList(CheckedBatchNorm(4) for _ in range(3))
        self.act = nn.ReLU()

    def forward(self, x):
        for conv, norm in zip(self.convs[:2], self.norms[:2], strict=True):
            x = self.act(self.add(norm(conv(x)), x))
        return self.act(self.norms[2](self.convs[2](x)))


@pytest.mark.parametrize("add", [lambda y, x: x.sigmoid() + y, operator.iadd])
def test_a_sum_with_its_activation_is_not_asked(add):
    """The activation in front of the question has one reader or two; it gives as many dimensions as the sum."""
    model = Residual(add).eval()
    x = torch.randn(2, 4, 3, 3)
    result = transform(model, x, patterns=ALL_PATTERNS, trace="symbolic")
    fused = [m["pattern"] for m in result.report["applied"] if m["stage"] == "fusion"]
    assert fused == ["ConvAddActPattern", "ConvAddActPattern", "ConvBNActPattern"]
    exported = transform(model, x, patterns=ALL_PATTERNS, trace="export")
    assert fused == [m["pattern"] for m in exported.report["applied"]]
    assert result.verify(x).max_abs == 0
    assert transform(result.model, x, patterns=ALL_PATTERNS).report["applied_count"] == 0
    with pytest.raises(AssertionError, match="expected four dimensions"):
        result.model(torch.randn(4, 3, 3))


def test_a_sum_of_which_nothing_better_is_known_leaves_the_question_where_it_is():
    def forward(m, x, y):
        z = F.relu(m.bn(m.conv(x)) + y)
        return z.sigmoid() / z.dim()

    model = net(forward, conv=nn.Conv2d(4, 4, 1), bn=nn.BatchNorm2d(4))
    result = transform(model, (random_input(2, 4, 3, 3), random_input(4, 1, 1)), patterns=ALL_PATTERNS)
    assert [m["pattern"] for m in result.report["applied"]] == ["ConvAddActPattern"]
