"""Questions about the number of dimensions do not stand in the way of fusions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.conversions import HoistRankQueryPattern
from support.small_patterns import ConvBNActPattern

PATTERNS = [HoistRankQueryPattern(), ConvBNActPattern()]


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
