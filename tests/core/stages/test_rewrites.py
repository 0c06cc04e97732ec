"""A wrong fused module is found by itself: each is called with the inputs of the nodes that it replaced."""

import math

import pytest
import torch
from torch import nn

from embedl_deploy import transform, verify_stages
from embedl_deploy.errors import InputError
from embedl_deploy.modules import FusedConv, FusedModule
from embedl_deploy.patterns import Fork, Pattern, replace_tree
from support.nets import random_input, scrambled

X = random_input(4, 3, 8, 8)


class ConvReLU(FusedConv):
    def __init__(self, conv, act):
        super().__init__(conv)
        self.act = act

    def forward(self, x):
        y = self.act(self.convolve(x))
        return y.roll(1, 1) if self.conv.groups > 1 else y


class ConvReLUPattern(Pattern):
    tree = (nn.Conv2d, nn.ReLU)
    graft = ConvReLU
    origin = "acme 1.2"


class ToReLU(Pattern):
    tree = (nn.ReLU6,)
    is_conversion = True

    def replace(self, match):
        return replace_tree(match, [nn.ReLU()])


class Add(FusedModule):
    def forward(self, x, y):
        return x + y


class AddPattern(Pattern):
    tree = (Fork(torch.add, (), ()),)
    graft = Add


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6())
        self.wide = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.ReLU(), nn.BatchNorm2d(8))
        self.last = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU())

    def forward(self, x):
        x = self.stem(x)
        return self.last(torch.add(self.wide(x), x))


@pytest.fixture
def compared():
    model = scrambled(Net()).eval()
    return lambda *patterns: verify_stages(
        model, X, {"fused": transform(model, patterns=[*patterns, ConvReLUPattern(), AddPattern()])}, layers=True
    )


def test_the_wrong_one_is_named_and_no_other(compared):
    found = compared(ToReLU())
    assert found.stages[0].sqnr < 30
    layers = found.layers["fused"]
    assert [(layer.module, layer.kind, layer.is_wrong) for layer in layers] == [
        ("stem.0", "ConvReLU", False),
        ("wide.0", "ConvReLU", True),
        ("add", "Add", False),
        ("last.0", "ConvReLU", False),
    ]
    assert all(layer.sqnr > 100 for layer in layers if not layer.is_wrong)
    assert found.first_below(30) == ("fused", layers[1])
    (line,) = str(found).splitlines()[1:]
    assert line.startswith(
        "fused: not what it replaced: wide.0 (ConvReLU, placed by pattern 'ConvReLUPattern' from acme 1.2): "
    )
    assert line.endswith("of the largest output)")
    assert " dB, max |Δ| = " in line
    assert found.to_dict()["layers"]["fused"][1]["pattern"] == "ConvReLUPattern"


def test_nothing_is_said_where_all_are_right(compared, monkeypatch):
    monkeypatch.setattr(ConvReLU, "forward", lambda self, x: self.act(self.convolve(x)))
    found = compared()
    assert all(layer.sqnr > 100 or math.isinf(layer.sqnr) for layer in found.layers["fused"])
    assert len(str(found).splitlines()) == 1


def test_models_stay_as_they_are():
    model = scrambled(Net()).train()
    result = transform(model, patterns=[ConvReLUPattern()])
    before = {name: tensor.clone() for name, tensor in result.model.state_dict().items()}
    random = torch.get_rng_state()
    verify_stages(model, X, {"fused": result}, layers=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in result.model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_outputs_that_cannot_be_compared_are_told_as_that(compared, monkeypatch):
    def pooled(self, x):
        y = self.act(self.convolve(x))
        return y.mean((2, 3), keepdim=True) if self.conv.groups > 1 else y

    monkeypatch.setattr(ConvReLU, "forward", pooled)
    found = compared()
    (wrong,) = (layer for layer in found.layers["fused"] if layer.is_wrong)
    assert wrong.problem == "returns float32[4, 8, 1, 1], expected float32[4, 8, 8, 8]"
    assert f"wide.0 (ConvReLU, placed by pattern 'ConvReLUPattern' from acme 1.2): {wrong.problem}" in str(found)


def test_so_are_they_where_the_models_outputs_cannot(compared, monkeypatch):
    monkeypatch.setattr(Add, "forward", lambda self, x, y: (x + y).mean((2, 3), keepdim=True))
    with pytest.raises(InputError, match=r"add \(Add, placed by pattern 'AddPattern'\): returns float"):
        compared()
