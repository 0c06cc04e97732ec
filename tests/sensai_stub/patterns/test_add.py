"""Sums of two maps."""

import pytest
import torch
from torch import nn

from embedl_deploy_sensai_stub.modules import SensaiAdd
from support.nets import net

IMAGE = (2, 4, 8, 8)


def conv(outputs=4):
    return nn.Conv2d(4, outputs, 1)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda m, x: torch.relu(m.conv(x) + x), ["SensaiConvBN", "SensaiAdd"]),
        (lambda m, x: m.conv(x).add_(x).relu_(), ["SensaiConvBN", "SensaiAdd"]),
        (lambda m, x: torch.add(x, m.conv(x)), ["SensaiConvBN", "SensaiAdd"]),
        (lambda m, x: m.conv(x).relu() + x, ["SensaiConvBNReLU", "SensaiAdd"]),
        (lambda m, x: x + x, ["SensaiAdd"]),
    ],
    ids=["with ReLU", "in place", "function", "ReLU before", "twice the same"],
)
def test_matches_and_agrees(function, expected, fuse, kinds, assert_agrees):
    model = net(function, conv=conv())
    assert kinds(fuse(model, torch.randn(IMAGE))) == expected
    assert_agrees(model, torch.randn(IMAGE), expect=len(expected))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(4, 8, 8))

    def forward(self, x):
        return x + self.shift


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (net(lambda m, x: m.conv(x) + x, conv=conv(1)), "it adds 2×1×8×8 and 2×4×8×8; the engine adds maps of one"),
        (net(lambda m, x: x + x.double()), "it adds torch.float32 and torch.float64; the engine has one type"),
        (Scaled(), "it adds a constant; the engine adds two maps"),
    ],
    ids=["broadcast", "types", "parameter"],
)
def test_declines_what_the_engine_cannot_run(model, reason, fuse, reasons):
    (given,) = reasons(model, "AddPattern", torch.randn(IMAGE))
    assert given.startswith(reason)
    assert f"add: {given}" in fuse(model, torch.randn(IMAGE)).report.unsupported.values()


@pytest.mark.parametrize("function", [lambda m, x: x + 1, lambda m, x: torch.add(x, x, alpha=2), lambda m, x: x - x])
def test_is_no_sum_of_two_maps(function, fuse, kinds):
    assert "SensaiAdd" not in kinds(fuse(net(function), torch.randn(IMAGE)))


@pytest.mark.parametrize("as_output", [False, True])
def test_a_value_used_outside_is_kept(as_output, fuse, kinds):
    def forward(m, x):
        y = m.conv(x) + x
        return (y.relu(), y) if as_output else y.relu() + y

    model, x = net(forward, conv=conv()), torch.randn(IMAGE)
    result = fuse(model, x)
    assert kinds(result)[:3] == ["SensaiConvBN", "SensaiAdd", "relu"]
    torch.testing.assert_close(result.model(x), model(x), rtol=0, atol=0)


def test_without_shapes_two_maps_are_taken_to_be_alike(fuse, kinds):
    assert kinds(fuse(net(lambda m, x, y: x + y))) == ["SensaiAdd"]


def test_a_second_run_changes_nothing(fuse):
    model, x = net(lambda m, x: (m.conv(x) + x).relu(), conv=conv()), torch.randn(IMAGE)
    first = fuse(model, x)
    assert first.report["applied_count"] == 2
    assert fuse(first.model, x).report["applied_count"] == 0
    (fused,) = (module for module in first.model.modules() if isinstance(module, SensaiAdd))
    assert isinstance(fused.relu, nn.ReLU)
