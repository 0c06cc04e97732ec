"""What a model computes without gradients, or with autocast off, is part of its graph, and the former passes none."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture import capture
from support.agreement import fused_counts
from support.nets import random_input

X = random_input(2, 3, 8, 8)


class Frozen(nn.Module):
    """A head on a backbone that is not trained."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        with torch.no_grad():
            features = self.backbone(x)
            count = (features > 0).sum((1, 2, 3))
            with torch.no_grad():
                pooled = features.mean((2, 3))
        return self.head(pooled * pooled), count, x.sum()


@pytest.mark.parametrize("given", ["model", "program"])
def test_a_frozen_backbone_is_fused_and_stays_frozen(given):
    model = Frozen().eval()
    source = model if given == "model" else torch.export.export(model, (X,), strict=False)
    result = transform(source, X, backend="tensorrt", trace="export" if given == "model" else "auto")
    if given == "model":  # a program has no modules
        assert fused_counts(result.model) == {"FusedConvBNReLU": 1, "FusedLinear": 1}
    got, wanted = result.model(X), model(X)
    for mine, users in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, users)
    got[0].sum().backward()
    wanted[0].sum().backward()
    gradients = {name: parameter.grad for name, parameter in result.model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is not None] == [
        name for name in gradients if name.startswith("head")
    ]


class Passing(nn.Module):
    """An input that passes through a part without gradients keeps its own."""

    def forward(self, x):
        with torch.no_grad():
            y, z = x, x * 2
        return y * 3 + z


def test_what_only_passes_keeps_its_gradient():
    x = X.clone().requires_grad_()
    capture(Passing(), (X,), trace="export").graph_module(x).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3.0))


class Enabling(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        with torch.no_grad():
            y = x + 1
            with torch.enable_grad():
                z = self.fc(x)
        return y + z


def test_gradients_that_are_switched_on_inside():
    model = Enabling()
    graph_module = capture(model, (X,), trace="export").graph_module
    assert torch.equal(graph_module(X), model(X))
    graph_module(X).sum().backward()
    assert graph_module.get_parameter(
        next(n for n, _ in graph_module.named_parameters() if "fc.weight" in n)
    ).grad.any()


class InFloat(nn.Module):
    """Switches autocast off, within a part without gradients, twice, and for nothing."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        with torch.no_grad():
            y = self.a(x)
            with torch.autocast(x.device.type, enabled=False):
                y = y * 2
        with torch.autocast(x.device.type, enabled=False):
            with torch.autocast(x.device.type, enabled=False):
                z = y + 1
            return self.b(z)


def test_what_is_under_autocast_that_is_off_is_fused():
    model = InFloat().eval()
    result = transform(model, X, backend="tensorrt", trace="export")
    assert fused_counts(result.model) == {"FusedLinear": 2}
    assert not any("wrap_with" in str(node.target) for node in result.model.graph.nodes)
    result.model(X).sum().backward()
    gradients = {name for name, parameter in result.model.named_parameters() if parameter.grad is not None}
    assert gradients == {"b.linear.weight", "b.linear.bias"}
    assert torch.equal(result.model(X), model(X))
