"""Smoothing changes nothing in float, whatever a fused module does with its input."""

import operator

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.modules import FusedMatmul, FusedModule
from embedl_deploy.patterns import Fork, Pattern, QDQPoint
from embedl_deploy.quantize.accuracy.group_statistics import measured_groups
from embedl_deploy.quantize.accuracy.smoothing import SmoothQuantConfig, smooth
from embedl_deploy.quantize.placing.placement import decide_for
from support.nets import net


class Gated(FusedModule):
    """Two products of one input, and one of what they give."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, up, gate, act, down):
        super().__init__()
        self.up, self.gate, self.act, self.down = FusedMatmul(up), FusedMatmul(gate), act, FusedMatmul(down)

    def forward(self, x, _same):
        return self.down(self.up(x) * self.act(self.gate(x)))


class GatedPattern(Pattern):
    tree = (Fork(operator.mul, (nn.Linear,), (nn.Linear, nn.Sigmoid)), nn.Linear)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = Gated


class Residual(FusedMatmul):
    def forward(self, x):
        assert x.shape[-1] == self.linear.in_features and x.dim() == 2  # questions are no use of the values
        return self.project(x) + x


class Twice(FusedMatmul):
    def forward(self, x):
        return self.project(x) + self.linear(x.abs())


class Squared(FusedMatmul):
    def forward(self, x):
        return self.project(x * x)


class HalfFloat(FusedMatmul):
    def __init__(self, linear):
        super().__init__(linear)
        self.other = nn.Linear(8, 8)

    def forward(self, x):
        return self.project(x) + self.other(x)


def pattern(module):
    return type("OnePattern", (Pattern,), {"tree": (nn.Linear,), "qdq_points": {QDQPoint.INPUT}, "graft": module})()


def smoothed(model, patterns, x):
    result = transform(model.eval(), x, patterns=patterns)
    changed = deep_copy(result.model)
    decisions, _ = decide_for(result.model, result.matches, None)
    groups, _ = measured_groups(changed, decisions, [x], progress=False)
    done = smooth(changed, groups, SmoothQuantConfig(alpha=0.5))
    with torch.no_grad():
        torch.testing.assert_close(changed(x), result.model(x), rtol=1e-5, atol=1e-5)
    return result.model, changed, [smoothing.told().outcome for smoothing in done]


@pytest.fixture(scope="module")
def x():
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(0)) * torch.logspace(-1, 1, 8)


def test_every_product_that_reads_the_input_is_scaled_and_no_other(x):
    torch.manual_seed(0)
    parts = {name: nn.Linear(8, 8) for name in ("up", "gate", "down")}
    model = net(lambda m, x: m.down(m.up(x) * torch.sigmoid(m.gate(x))), **parts)
    before, after, (outcome,) = smoothed(model, [GatedPattern()], x)
    assert outcome.startswith("by x_smooth")
    factors = after.get_submodule("x_smooth").factors.reshape(-1)
    old, new = (model.get_submodule("up") for model in (before, after))
    for name in ("up", "gate"):
        weights = [getattr(part, name).linear.weight for part in (old, new)]
        torch.testing.assert_close(weights[1] * factors, weights[0])
    assert torch.equal(old.down.linear.weight, new.down.linear.weight)


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (Residual, "the module reads it by add too, besides its products"),
        (Twice, "the module reads it by abs too, besides its products"),
        (Squared, "the data never reaches it, or the module does not feed its input to its product"),
        (HalfFloat, "the module reads it by linear too, besides its products"),
    ],
)
def test_a_module_that_does_more_with_its_input_is_declined(module, problem, x):
    torch.manual_seed(0)
    _, _, outcomes = smoothed(nn.Sequential(nn.Linear(8, 8)), [pattern(module)], x)
    assert outcomes == [f"declined: {problem}"]


def test_one_module_of_several_that_does_more_declines_for_all(x):
    torch.manual_seed(0)
    model = net(lambda m, x: m.a(x) + torch.relu(m.b(x)), a=nn.Linear(8, 8), b=nn.Linear(8, 8))
    reader = type("ReLUPattern", (Pattern,), {"tree": (nn.Linear, nn.ReLU), "qdq_points": {QDQPoint.INPUT}})
    reader.graft = staticmethod(lambda linear, _relu: Residual(linear))
    patterns = [reader(), pattern(FusedMatmul)]
    result = transform(model.eval(), x, patterns=patterns)
    assert result.report["applied_count"] == 2
    _, _, outcomes = smoothed(model, patterns, x)
    assert outcomes == ["declined: b: the module reads it by add too, besides its products"]
