"""Modules that do nothing are removed, and only those."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.conversions import RemoveIdentityPattern
from support.small_patterns import ConvBNActPattern

X = torch.randn(2, 4, 3, 3)
PATTERNS = [RemoveIdentityPattern(), ConvBNActPattern()]


def chain(*modules):
    return nn.Sequential(nn.Conv2d(4, 4, 1), *modules, nn.ReLU()).eval()


@pytest.mark.parametrize("nothing", [nn.Identity(), nn.Dropout(0.0)])
def test_no_longer_stands_between(nothing):
    result = transform(chain(nothing, nothing), patterns=PATTERNS)
    assert [m["pattern"] for m in result.report["applied"]] == ["RemoveIdentityPattern"] * 2 + ["ConvBNActPattern"]
    assert result.verify(torch.randn(2, 4, 3, 3)).max_abs == 0
    assert transform(result.model, patterns=PATTERNS).report["applied_count"] == 0


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_nor_does_a_call_of_a_function(trace):
    class Calls(nn.Sequential):
        def forward(self, x):
            return self[1](nn.functional.dropout(self[0](x), 0.0, self.training))

    result = transform(Calls(nn.Conv2d(4, 4, 1), nn.ReLU()).eval(), X, patterns=PATTERNS, trace=trace)
    assert [m["pattern"] for m in result.report["applied"]] == ["RemoveIdentityPattern", "ConvBNActPattern"]
    assert result.verify(X).max_abs == 0


def test_dropout_that_drops_in_training_stays():
    result = transform(chain(nn.Dropout(0.5)), patterns=PATTERNS)
    assert result.report["applied_count"] == 0
    assert result.report.why_not("_0", "ConvBNActPattern") == [
        "_0: ConvBNActPattern does not match: _0 is followed by _1 (Dropout), expected ReLU or ReLU6 or LeakyReLU or "
        "ELU or GELU or SiLU or Hardswish or Hardsigmoid"
    ]


def test_subclass_with_its_own_forward_stays():
    class Doubling(nn.Identity):
        def forward(self, x):
            return 2 * x

    result = transform(chain(Doubling()), patterns=PATTERNS)
    assert result.report["applied_count"] == 0
    assert result.verify(torch.randn(2, 4, 3, 3)).max_abs == 0


def test_watched_identity_stays():
    watched = nn.Identity()
    watched.register_forward_hook(lambda module, args, output: output + 1)
    result = transform(chain(watched), patterns=PATTERNS)
    assert result.report["declined"][0]["reason"] == "hooks on the module would be lost"
    assert result.verify(torch.randn(2, 4, 3, 3)).max_abs == 0


def test_identity_as_output_and_as_whole_model():
    result = transform(nn.Sequential(nn.Identity(), nn.Identity()), patterns=PATTERNS)
    assert result.report["applied_count"] == 2
    assert result.verify(torch.randn(3)).max_abs == 0
