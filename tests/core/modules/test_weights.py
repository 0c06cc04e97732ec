"""Which weight each place for a weight's quantizer is for."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from embedl_deploy.modules import (
    FusedConv,
    FusedMatmul,
    FusedModule,
    WeightFakeQuantize,
    fix_parametrized_weights,
    named_weights,
    weights_besides,
)


def module(**parts: object) -> FusedModule:
    fused = FusedModule()
    for name, part in parts.items():
        setattr(fused, name, part)
    return fused


def conv() -> nn.Conv2d:
    return nn.Conv2d(2, 2, 1)


def told(fused: nn.Module) -> dict[str, str]:
    """Name of each weight → path of its operator."""
    return {weight.name: weight.path for weight in named_weights(fused)}


def place() -> WeightFakeQuantize:
    return WeightFakeQuantize()


@pytest.mark.parametrize(
    ("fused", "weights"),
    [
        (lambda: FusedConv(conv(), nn.BatchNorm2d(2)), {"weight": "conv"}),
        (lambda: FusedMatmul(nn.Linear(2, 2)), {"weight": "linear"}),
        (lambda: module(a=conv(), weight_fake_quant=place()), {"weight": "a"}),
        (lambda: module(a=nn.Sequential(conv()), weight_fake_quant=place()), {"weight": "a.0"}),
        (lambda: module(weight_fake_quant=place()), {"weight": ""}),
        (lambda: module(a=conv(), b=conv(), weight_fake_quant=place()), {"weight": ""}),
        (
            lambda: module(a=FusedConv(conv()), b=FusedMatmul(nn.Linear(2, 2))),
            {"a.weight": "a.conv", "b.weight": "b.linear"},
        ),
        (
            lambda: module(a=conv(), b=conv(), b_weight_fake_quant=place(), a_weight_fake_quant=place()),
            {"b.weight": "b", "a.weight": "a"},
        ),
        (
            lambda: module(a=FusedConv(conv()), b=conv(), weight_fake_quant=place()),
            {"weight": "b", "a.weight": "a.conv"},
        ),
        (
            lambda: module(a=conv(), b=conv(), a_weight_fake_quant=place(), weight_fake_quant=place()),
            {"a.weight": "a", "weight": "b"},
        ),
        (
            lambda: module(branches=nn.ModuleList([FusedConv(conv()), FusedConv(conv())])),
            {"branches.0.weight": "branches.0.conv", "branches.1.weight": "branches.1.conv"},
        ),
        (lambda: nn.Sequential(FusedConv(conv()), nn.ReLU()), {"0.weight": "0.conv"}),
    ],
)
def test_names_and_operators(fused, weights):
    fused = fused()
    assert told(fused) == weights
    for weight in named_weights(fused):
        assert weight.problem is None
        assert fused.get_submodule(weight.place) is weight.stub
        if weight.operator is not None:
            assert fused.get_submodule(weight.path) is weight.operator


def test_a_subclass_of_fused_conv_may_hold_another_convolution():
    class Two(FusedConv):
        def __init__(self) -> None:
            super().__init__(conv())
            self.other = nn.Linear(2, 2)

    assert told(Two()) == {"weight": "conv"}
    ((path, _, reason),) = weights_besides(Two(), ["conv"])
    assert (path, reason) == ("other", "the module declares no quantization point for its weight")


def test_parts_may_be_shared():
    part = FusedConv(conv())
    assert told(module(a=part, b=part)) == {"a.weight": "a.conv"}
    operator = conv()
    assert [w.operator for w in named_weights(module(a=FusedConv(operator), b=FusedConv(operator)))] == [operator] * 2


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"a": conv, "other": place}, "named 'weight_fake_quant', or after the part"),
        ({"a": conv, "b_weight_fake_quant": place}, "named 'weight_fake_quant', or after the part"),
        ({"a": nn.ReLU, "a_weight_fake_quant": place}, "'a' has 0 convolutions, Linears and Embeddings"),
        ({"a": lambda: nn.Sequential(conv(), conv()), "a_weight_fake_quant": place}, "'a' has 2 convolutions"),
        ({"a": lambda: FusedConv(conv()), "a_weight_fake_quant": place}, "'a' has 0 convolutions"),
    ],
)
def test_places_of_no_one_weight(parts, problem):
    found = named_weights(module(**{name: make() for name, make in parts.items()}))
    (text,) = (weight.problem for weight in found if weight.problem)
    assert problem in text


def test_one_place_for_two_weights():
    shared = place()
    fused = module(a=conv(), b=conv(), a_weight_fake_quant=shared, b_weight_fake_quant=shared)
    (weight,) = named_weights(fused)
    assert weight.problem == "it is the place of 'a' and of 'b', which have one quantizer then"


def test_what_is_besides_says_why_where_the_module_does():
    opted = FusedConv(conv())
    opted.why_not_quantized = "three groups"
    fused = module(a=opted, b=nn.MultiheadAttention(2, 1), c=nn.LSTM(2, 2), d=conv())
    told = {path: reason for path, _, reason in weights_besides(fused, ["d"])}
    nothing = "the module declares no quantization point for its weight"
    assert told == {"a.conv": "three groups", "b": nothing, "c": nothing}
    fused.why_not_quantized = "all of it in float"
    assert {reason for _, _, reason in weights_besides(fused, [])} == {"three groups", "all of it in float"}


def test_parametrized_weights_become_plain_where_they_are_quantized():
    fused = module(a=FusedConv(parametrizations.weight_norm(conv())), b=FusedConv(parametrizations.weight_norm(conv())))
    fused.a.weight_fake_quant.quantizer = nn.Identity()
    fix_parametrized_weights(fused)
    assert type(fused.a.conv) is nn.Conv2d and type(fused.b.conv) is not nn.Conv2d


def test_fused_parts_are_called():
    x = torch.randn(2, 2, 3, 3)
    fused = FusedConv(conv(), nn.BatchNorm2d(2)).eval()
    assert torch.equal(fused(x), fused.convolve(x))
    assert torch.equal(FusedMatmul(product := nn.Linear(3, 2))(x), product(x))
