"""Parameters in another shape: shared, trained and copied as before."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from embedl_deploy import transform
from embedl_deploy.errors import PatternError
from embedl_deploy.patterns import Pattern, get_module, replace_tree, share_reshaped
from embedl_deploy.quantize import QuantConfig, quantize
from support.agreement import check_rewrite
from support.nets import net, random_input
from support.small_patterns import ConvPattern

X = random_input(3, 4)


class ToConv(Pattern):
    """A product becomes a 1×1 convolution over a map of one point."""

    tree = (nn.Linear,)
    is_conversion = True

    def replace(self, pattern_match):
        linear = get_module(pattern_match.tree_match.last)
        conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None, device="meta")
        share_reshaped(pattern_match, conv, "weight", linear.weight)
        share_reshaped(pattern_match, conv, "bias", linear.bias)
        return replace_tree(pattern_match, [nn.Unflatten(1, (-1, 1, 1)), conv, nn.Flatten()])


def tied():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    return first, second


def models():
    first, second = tied()
    yield "alone", net(lambda m, x: m.a(x), a=nn.Linear(4, 4)), 0
    yield "called twice", net(lambda m, x: m.a(torch.relu(m.a(x))), a=nn.Linear(4, 4)), 2
    yield "tied", net(lambda m, x: m.b(torch.relu(m.a(x))), a=first, b=second), 2
    yield "read elsewhere", net(lambda m, x: m.a(x) @ m.a.weight, a=nn.Linear(4, 4)), 1
    yield "a function", net(lambda m, x: nn.functional.linear(x, m.w), w=nn.Parameter(torch.ones(4, 4))), 0


CASES = list(models())


@pytest.mark.parametrize(("model", "parametrized"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_outputs_training_and_sharing_stay(model, parametrized):
    result = check_rewrite(model, (X,), [ToConv()], shapes=False)
    convolutions = [m for m in result.model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(parametrize.is_parametrized(conv) for conv in convolutions) == parametrized
    assert len(list(result.model.parameters())) == len(list(model.parameters()))


def test_a_deep_copy_has_tensors_of_its_own_and_shares_among_them():
    model = transform(CASES[2][1], patterns=[ToConv()]).model
    copied = copy.deepcopy(model)
    assert len(list(copied.parameters())) == len(list(model.parameters())) == 2
    assert not {id(p) for p in copied.parameters()} & {id(p) for p in model.parameters()}
    with torch.no_grad():
        next(iter(copied.parameters())).add_(1.0)
    assert not torch.equal(copied(X), model(X))


def test_what_is_frozen_stays_frozen():
    model = net(lambda m, x: m.a(x), a=nn.Linear(4, 4).requires_grad_(False))
    assert not any(p.requires_grad for p in transform(model, patterns=[ToConv()]).model.parameters())


def test_it_can_be_fused_and_quantized():
    result = transform(CASES[2][1], patterns=[ToConv(), ConvPattern()])
    quantized = quantize(result, [X], QuantConfig(), progress=False)
    assert torch.isfinite(quantized(X)).all()


class Wrong(ToConv):
    def replace(self, pattern_match):
        linear = get_module(pattern_match.tree_match.last)
        share_reshaped(pattern_match, nn.Conv2d(2, 4, 1, device="meta"), "weight", linear.weight)


def test_another_number_of_values_is_refused():
    with pytest.raises(PatternError, match=r"Conv2d has one of the shape \(4, 2, 1, 1\) for 'weight'.*\(4, 4\)"):
        transform(CASES[0][1], patterns=[Wrong()], strict=True)


def test_a_computed_weight_is_refused():
    model = net(lambda m, x: m.a(x), a=nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(PatternError, match="'weight' is computed"):
        transform(model, patterns=[ToConv()], strict=True)
