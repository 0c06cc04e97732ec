"""Convolution, batch norm, ReLU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.modules import PaddedConv2d
from embedl_deploy_sensai_stub.modules import SensaiConvBNReLU

IMAGE = (2, 4, 8, 8)


def conv(**settings):
    return nn.Conv2d(4, settings.pop("out", 4), settings.pop("kernel", 3), **{"padding": 1, **settings})


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((conv(), nn.BatchNorm2d(4), nn.ReLU()), ["SensaiConvBNReLU"]),
        ((conv(), nn.BatchNorm2d(4), nn.ReLU(inplace=True)), ["SensaiConvBNReLU"]),
        ((conv(), nn.ReLU()), ["SensaiConvBNReLU"]),
        ((conv(), nn.BatchNorm2d(4)), ["SensaiConvBN"]),
        ((conv(bias=False),), ["SensaiConvBN"]),
        ((conv(groups=4, stride=2), nn.ReLU(), conv(kernel=1, padding=0)), ["SensaiConvBNReLU", "SensaiConvBN"]),
    ],
)
def test_matches_and_agrees(layers, expected, fuse, kinds, assert_agrees):
    model = nn.Sequential(*layers)
    assert kinds(fuse(model)) == expected
    assert_agrees(model, torch.randn(IMAGE))


def test_keeps_the_original_modules(fuse):
    model = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()).eval()
    fused = fuse(model).model.get_submodule("0")
    assert isinstance(fused, SensaiConvBNReLU)
    assert torch.equal(fused.conv.weight, model[0].weight)
    assert isinstance(fused.bn, nn.BatchNorm2d)
    assert isinstance(fused.relu, nn.ReLU)


def test_functional_forms_count(fuse, kinds, assert_agrees):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = conv(), nn.BatchNorm2d(4)

        def forward(self, x):
            return F.relu(self.bn(self.conv(x)))

    assert kinds(fuse(Functional())) == ["SensaiConvBNReLU"]
    assert_agrees(Functional(), torch.randn(IMAGE))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kernel": 5, "padding": 2}, "kernel is 5×5"),
        ({"kernel": (1, 3), "padding": 0}, "kernel is 1×3"),
        ({"stride": 3}, "stride is 3×3"),
        ({"stride": (1, 2)}, "stride is 1×2"),
        ({"groups": 2}, "2 groups"),
        ({"groups": 4, "out": 8}, "4 to 8 channels in 4 groups"),
        ({"dilation": 2}, "dilation is 2×2"),
        ({"padding_mode": "reflect"}, "padding mode is 'reflect'"),
    ],
)
@pytest.mark.parametrize("pattern", ["ConvBNReLUPattern", "ConvBNPattern"])
def test_declines_what_the_engine_cannot_run(settings, reason, pattern, fuse, reasons):
    model = nn.Sequential(conv(**settings), nn.ReLU())
    assert any(reason in given for given in reasons(model, pattern))
    result = fuse(model)
    assert result.report["applied_count"] == 0
    assert any(reason in line and pattern in line for line in result.report.why_not("0"))


def test_batch_norm_without_statistics_stays_outside(fuse, kinds, reasons, assert_agrees):
    model = nn.Sequential(conv(), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU())
    assert kinds(fuse(model)) == ["SensaiConvBN", "BatchNorm2d", "ReLU"]
    assert any("no running statistics" in given for given in reasons(model, "ConvBNReLUPattern"))
    assert_agrees(model, torch.randn(IMAGE))


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.SiLU(), nn.GELU()])
def test_another_activation_stays_outside(activation, fuse, kinds):
    result = fuse(nn.Sequential(conv(), nn.BatchNorm2d(4), activation))
    assert kinds(result) == ["SensaiConvBN", type(activation).__name__]
    assert any("expected ReLU" in line for line in result.report.why_not("0", "ConvBNReLUPattern"))


class UsedOutside(nn.Module):
    """The value between batch norm and ReLU is needed twice."""

    def __init__(self, as_output):
        super().__init__()
        self.conv, self.bn, self.relu, self.as_output = conv(), nn.BatchNorm2d(4), nn.ReLU(), as_output

    def forward(self, x):
        y = self.bn(self.conv(x))
        return (self.relu(y), y) if self.as_output else self.relu(y) + y


@pytest.mark.parametrize(("as_output", "reason"), [(False, "bn feeds 2 users"), (True, "bn is an output of the model")])
def test_a_value_used_outside_is_kept(as_output, reason, fuse, kinds, reasons):
    model, x = UsedOutside(as_output).eval(), torch.randn(IMAGE)
    result = fuse(model)
    assert kinds(result)[:2] == ["SensaiConvBN", "ReLU"]
    assert any(reason in given for given in reasons(model, "ConvBNReLUPattern"))
    torch.testing.assert_close(result.model(x), model(x), rtol=0, atol=0)


def test_a_second_run_changes_nothing(fuse, kinds):
    first = fuse(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), conv()))
    second = fuse(first.model)
    assert first.report["applied_count"] == 2
    assert second.report["applied_count"] == 0
    assert kinds(second) == kinds(first)


def test_folded_padding_is_fused(fuse, kinds, assert_agrees):
    model = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv(stride=2, padding=0), nn.BatchNorm2d(4), nn.ReLU())
    result = fuse(model)
    assert kinds(result) == ["SensaiConvBNReLU"]
    (fused,) = (m for m in result.model.modules() if isinstance(m, SensaiConvBNReLU))
    assert isinstance(fused.conv, PaddedConv2d)
    assert_agrees(model, torch.randn(IMAGE), expect=2)
