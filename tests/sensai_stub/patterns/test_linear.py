"""Fully connected layers."""

import pytest
import torch
from torch import nn


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((nn.Linear(6, 4), nn.ReLU()), ["SensaiLinear"]),
        ((nn.Linear(6, 4, bias=False),), ["SensaiLinear"]),
        ((nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), ["SensaiLinear", "SensaiLinear"]),
    ],
)
def test_matches_and_agrees(layers, expected, fuse, kinds, assert_agrees):
    model = nn.Sequential(*layers)
    assert kinds(fuse(model)) == expected
    assert_agrees(model, torch.randn(3, 6))


def test_another_activation_stays_outside(fuse, kinds):
    assert kinds(fuse(nn.Sequential(nn.Linear(6, 4), nn.GELU()))) == ["SensaiLinear", "GELU"]


def test_declines_tokens_once_shapes_are_known(fuse, kinds, reasons):
    model, tokens = nn.Sequential(nn.Linear(6, 4)), torch.randn(2, 5, 6)
    assert kinds(fuse(model)) == ["SensaiLinear"], "without shapes every layer is taken for one vector per sample"
    assert kinds(fuse(model, tokens)) == ["Linear"]
    assert reasons(model, "LinearPattern", tokens) == ["its input is 2×5×6; the engine takes one vector per sample"]


class UsedOutside(nn.Module):
    def __init__(self, as_output):
        super().__init__()
        self.linear, self.relu, self.as_output = nn.Linear(6, 4), nn.ReLU(), as_output

    def forward(self, x):
        y = self.linear(x)
        return (self.relu(y), y) if self.as_output else self.relu(y) + y


@pytest.mark.parametrize(
    ("as_output", "reason"), [(False, "linear feeds 2 users"), (True, "linear is an output of the model")]
)
def test_a_value_used_outside_is_kept(as_output, reason, fuse, kinds, reasons):
    model, x = UsedOutside(as_output), torch.randn(3, 6)
    result = fuse(model)
    assert kinds(result)[:2] == ["SensaiLinear", "ReLU"]
    assert any(reason in given for given in reasons(model, "LinearPattern"))
    torch.testing.assert_close(result.model(x), model(x), rtol=0, atol=0)


def test_a_second_run_changes_nothing(fuse, kinds):
    first = fuse(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), torch.randn(3, 6))
    second = fuse(first.model, torch.randn(3, 6))
    assert (first.report["applied_count"], second.report["applied_count"]) == (1, 0)
    assert kinds(second) == ["SensaiLinear"]
