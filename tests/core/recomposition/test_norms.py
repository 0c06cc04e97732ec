"""Norms that are written out become modules, with the same numbers in every type."""

import copy

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.modules import LayerNorm2d, RMSNorm2d, WrittenLayerNorm, WrittenRMSNorm
from embedl_deploy.recomposition import RecomposeNormPattern
from support.agreement import check_rewrite, reasons
from support.nets import net, random_input

PATTERN = RecomposeNormPattern()
X = random_input(2, 3, 5)
MAPS = random_input(2, 5, 4, 3)
NORMS = (nn.LayerNorm, nn.RMSNorm, LayerNorm2d, RMSNorm2d)


def written(function, *shape):
    return net(function, weight=nn.Parameter(torch.ones(shape)), bias=nn.Parameter(torch.ones(shape)))


def recomposed(model, x, trace="symbolic", count=1):
    """The modules that take the norms' places, and the result."""
    result = transform(model, x, patterns=[PATTERN], trace=trace, strict=True)
    found = [module for module in result.model.modules() if isinstance(module, NORMS)]
    assert len(found) == result.report["applied_count"] == count, reasons(result)
    return found, result


def centred(x):
    return x - x.mean(-1, keepdim=True)


def rms(x, eps=1e-6):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


LAYER_NORMS = {
    "var": lambda m, x: centred(x) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5) * m.weight + m.bias,
    "correction": lambda m, x: m.bias + (x.var(-1, correction=0, keepdim=True) + 1e-5).rsqrt() * centred(x) * m.weight,
    "centred twice": lambda m, x: centred(x) * torch.rsqrt((centred(x) ** 2).mean(-1, True).add(1e-5)),
    "by position": lambda m, x: centred(x) / (1e-5 + centred(x).square().mean(2, keepdim=True)).pow(0.5) * m.weight,
    "several ones": lambda m, x: centred(x) * (centred(x).square().mean(-1, True) + 1e-5).pow(-0.5) * m.weight[None],
    "reciprocal": lambda m, x: (
        centred(x) * torch.sqrt(torch.mean(torch.pow(centred(x), 2), -1, keepdim=True) + 1e-5).reciprocal()
    ),
    "one divided": lambda m, x: (1 / torch.sqrt(centred(x).square().mean([-1], keepdim=True) + 1e-5)) * centred(x),
}
RMS_NORMS = {
    "pow": lambda m, x: rms(x) * m.weight,
    "product": lambda m, x: m.weight * (x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)),
    "square, no weight": lambda m, x: x * (torch.square(x).mean(dim=-1, keepdim=True) + 1e-5) ** -0.5,
    "one added": lambda m, x: rms(x) * (1.0 + m.weight),
    "of a sum": lambda m, x: rms(x + 1) * m.weight,
}


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize(("kind", "spellings"), [(nn.LayerNorm, LAYER_NORMS), (nn.RMSNorm, RMS_NORMS)])
def test_every_spelling_is_the_module_to_twelve_digits(kind, spellings, trace):
    model = written(lambda m, x: tuple(function(m, x * m.bias) for function in spellings.values()), 5).double()
    norms, result = recomposed(model, X.double(), trace, len(spellings))
    assert all(isinstance(norm, kind) for norm in norms)
    torch.testing.assert_close(result.model(X.double()), model(X.double()), rtol=1e-12, atol=1e-12)


CHANNELS = {
    "no mean is taken off": lambda m, x: x / (x.square().mean(1, True) + 1e-6).sqrt() * m.weight.view(5, 1, 1),
    "as in ConvNeXt": lambda m, x: (
        m.weight[:, None, None]
        * ((x - x.mean(1, True)) / torch.sqrt((x - x.mean(1, True)).pow(2).mean(1, True) + 1e-6))
        + m.bias[:, None, None]
    ),
    "var_mean": lambda m, x: (
        (x - torch.var_mean(x, 1, keepdim=True)[1])
        / torch.sqrt(x.var(1, False, True) + 1e-6)
        * m.weight.view(1, 5, 1, 1)
    ),
}


@pytest.mark.parametrize(
    ("name", "trace", "kind"),
    [
        ("as in ConvNeXt", "export", LayerNorm2d),
        ("var_mean", "symbolic", LayerNorm2d),
        ("no mean is taken off", "symbolic", RMSNorm2d),
    ],
)
def test_over_channels(name, trace, kind):
    model = written(CHANNELS[name], 5).double()
    (norm,), result = recomposed(model, MAPS.double(), trace)
    assert isinstance(norm, kind) and norm.weight.shape == (5,) and isinstance(norm.weight, nn.Parameter)
    torch.testing.assert_close(result.model(MAPS.double()), model(MAPS.double()), rtol=1e-12, atol=1e-12)
    check_rewrite(written(CHANNELS["as in ConvNeXt"], 5), (MAPS,), [PATTERN])


def test_training_and_a_second_run():
    check_rewrite(written(lambda m, x: LAYER_NORMS["var"](m, x), 5), (X,), [PATTERN])
    check_rewrite(written(lambda m, x: rms(x) * (1 + m.weight) + m.bias, 5), (X,), [PATTERN])


def test_a_weight_that_is_shared_stays_shared():
    model = written(lambda m, x: (CHANNELS["as in ConvNeXt"](m, x), x * m.weight.view(5, 1, 1)), 5)
    (norm,), result = recomposed(model, MAPS)
    assert norm.parametrizations.weight.original is result.model.weight
    check_rewrite(model, (MAPS,), [PATTERN])


def llama(m, x):
    return m.weight * rms(x.to(torch.float32)).to(x.dtype)


TYPES = {
    "as in Llama": (llama, WrittenRMSNorm, "input"),
    "as in T5": (lambda m, x: m.weight * rms_of_t5(x).to(m.weight.dtype), WrittenRMSNorm, "weight"),
    "as in Gemma": (lambda m, x: (rms(x.float()) * (1 + m.weight.float())).type_as(x), WrittenRMSNorm, None),
    "weighted in float32": (lambda m, x: (m.weight * rms(x.float())).to(x.dtype), WrittenRMSNorm, None),
    "without weight": (lambda m, x: rms(x.float()).to(x.dtype), WrittenRMSNorm, "input"),
    "centred": (
        lambda m, x: (
            (centred(x.float()) / torch.sqrt(centred(x.float()).pow(2).mean(-1, True) + 1e-7)).to(x.dtype) * m.weight
            + m.bias
        ),
        WrittenLayerNorm,
        "input",
    ),
}


def rms_of_t5(x):
    return x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_upcasts_are_those_of_the_author(trace):
    functions = [function for function, _, _ in TYPES.values()]
    model = net(
        lambda m, x: tuple(function(m, m.fc(x)) for function in functions),
        fc=nn.Linear(5, 5),
        weight=nn.Parameter(torch.ones(5)),
        bias=nn.Parameter(torch.ones(5)),
    )
    norms, result = recomposed(model, X, trace, len(TYPES))
    for norm, (_, kind, rounds_to) in zip(norms, TYPES.values(), strict=True):
        assert isinstance(norm, kind) and norm.upcast is torch.float32
        if trace == "export" and rounds_to == "input":  # to the model's type, as its weight is of
            rounds_to = None if norm.weight is None else "weight"
        assert norm.rounds_to == rounds_to
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        wanted = copy.deepcopy(model).to(dtype)(X.to(dtype))
        got = copy.deepcopy(result.model).to(dtype)(X.to(dtype))
        assert [y.dtype for y in got] == [y.dtype for y in wanted]
        torch.testing.assert_close(got, wanted, rtol=1e-6 if dtype is torch.float32 else 0, atol=1e-6)


def test_what_float16_cannot_square_is_normalized_all_the_same():
    _, result = recomposed(written(lambda m, x: rms(x) * m.weight, 5), X)
    half, large = result.model.half(), (X * 1000).half()
    torch.testing.assert_close(half(large), half(X.half()), rtol=2e-3, atol=2e-3)


def test_a_conversion_that_is_read_elsewhere_stays():
    def function(m, x):
        wide = x.to(torch.float64)
        return wide + rms(wide) * m.weight

    (norm,), result = recomposed(written(function, 5), X)
    assert isinstance(norm, WrittenRMSNorm) and norm.upcast is None
    torch.testing.assert_close(result.model(X), written(function, 5)(X), rtol=1e-12, atol=1e-12)


OTHERS = {
    "an epsilon outside the root": lambda m, x: centred(x) / (torch.sqrt(x.var(-1, False, True)) + 1e-5),
    "the deviation of torch": lambda m, x: centred(x) / (x.std(-1, keepdim=True) + 1e-5),
    "clamped": lambda m, x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-5),
    "its own epsilon": lambda m, x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.weight),
    "another tensor": lambda m, x: (x + 1) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
    "the sum of squares": lambda m, x: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-5),
    "multiplied by the root": lambda m, x: x * torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
    "divided by the inverse": lambda m, x: x / torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
    "the root divided": lambda m, x: torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) / x,
    "in place": lambda m, x: (x * 1).mul_(torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)),
    "centred elsewhere": lambda m, x: (x - x.mean(1, True)) / torch.sqrt(x.var(-1, False, True) + 1e-5),
    "a weight that depends on the input": lambda m, x: rms(x * m.weight) * x.sum(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_stay(name):
    model = written(OTHERS[name], 1 if name == "its own epsilon" else 5)
    result = check_rewrite(model, [X], [PATTERN], train=False)
    assert result.report["applied_count"] == (name == "a weight that depends on the input")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda m, x: centred(x) / torch.sqrt(x.var(-1, keepdim=True) + 1e-5), "one less than the number of values"),
        (
            lambda m, x: x / torch.sqrt(x.var(-1, False, True) + 1e-5),
            "x, which is divided by its standard deviation, has its mean",
        ),
        (
            lambda m, x: rms(x.transpose(0, 2)).sum() + x * torch.rsqrt(x.pow(2).mean(0, True) + 1),
            "neither the last nor",
        ),
        (lambda m, x: x * (r := torch.rsqrt(x.pow(2).mean(-1, True) + 1e-5)) + r, "rsqrt feeds 2 users"),
        (lambda m, x: x[0, 0] * torch.rsqrt(x[0, 0].pow(2).mean(-1) + 1e-5), "mean does not keep the axes"),
    ],
)
def test_what_is_no_norm_of_a_layer_says_why(function, reason):
    result = transform(written(function, 5), X, patterns=[PATTERN])
    assert any(reason in told for told in reasons(result)), reasons(result)


def test_axes_whose_sizes_may_change_are_not_written_down():
    result = transform(
        written(lambda m, x: x * torch.rsqrt(x.pow(2).mean((-2, -1), True) + 1e-5), 5), MAPS, patterns=[PATTERN]
    )
    (reason,) = reasons(result)
    assert reason.endswith("the sizes of its axes are not known, or may change")


def test_a_norm_without_weight_over_a_size_that_a_layer_has_holds_for_every_batch():
    model = net(lambda m, x: rms(m.fc(x).view(x.shape[0], -1, 2, 3).transpose(1, 2)), fc=nn.Linear(5, 6)).double()
    _, result = recomposed(model, X.double())
    other = random_input(3, 7, 5).double()
    torch.testing.assert_close(result.model(other), model(other), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "example", "other"),
    [
        (lambda m, x: rms(m.fc(x).t()), random_input(5, 5), random_input(2, 5)),  # over the batch
        (lambda m, x: centred(x) / torch.sqrt(x.var(-1, False, True) + 1e-5), X, random_input(2, 3, 9)),
        (lambda m, x: rms(x) * m.one, random_input(2, 1), random_input(2, 9)),  # a weight that is broadcast
    ],
)
def test_a_size_that_only_the_example_has_is_not_written_down(function, example, other):
    model = net(function, fc=nn.Linear(5, 5), one=nn.Parameter(torch.full((1,), 3.0)))
    result = transform(model, example, patterns=[PATTERN])
    assert "no weight or layer fixes it for other calls" in reasons(result)[0]
    torch.testing.assert_close(result.model(other), model(other))
