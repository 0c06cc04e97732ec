"""Products of two tensors that flow in: taken with their numbers, and left where they have to be precise."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.modules import FusedActivationProduct
from embedl_deploy.quantize import QuantConfig, quantization_report, quantize
from embedl_deploy.recomposition import ActivationProductPattern, RecomposeAttentionPattern
from support.agreement import applied, check_rewrite, reasons
from support.nets import net, random_input

PATTERN = ActivationProductPattern()
X, Y = random_input(2, 3, 5, 4), random_input(2, 3, 4, 6, seed=1)


def taken(model, inputs, trace="symbolic"):
    """The module that takes a product's place."""
    result = transform(model, inputs, patterns=[PATTERN], trace=trace, strict=True)
    found = [module for module in result.model.modules() if isinstance(module, FusedActivationProduct)]
    assert len(found) == result.report["applied_count"] == 1, reasons(result)
    return found[0], result


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize(
    "function",
    [
        lambda m, x, y: x @ y,
        lambda m, x, y: x.matmul(y),
        lambda m, x, y: torch.bmm(x[0], y[0]),
        lambda m, x, y: torch.baddbmm(x[0, :, :, :1], x[0], y[0], beta=0.5, alpha=-2.0),
        lambda m, x, y: torch.einsum("bhwc, bhck -> bkhw", x, y),
        lambda m, x, y: torch.mm(x[0, 0], y[0, 0]),
        lambda m, x, y: torch.addmm(y[0, 0, 0], x[0, 0], y[0, 0], beta=0.5, alpha=-2.0),
        lambda m, x, y: torch.inner(x, y.mT),
        lambda m, x, y: torch.tensordot(x, y[0], dims=([-1, 1], [1, 0])),
        lambda m, x, y: torch.tensordot(x, y[0, 0], 1),
        lambda m, x, y: F.linear(x, y[0, 0].mT, y[0, 0, 0]),
    ],
)
def test_each_spelling_is_the_same_to_twelve_digits(function, trace):
    x, y = X.double(), Y.double()
    _, result = taken(net(function), (x, y), trace)
    torch.testing.assert_close(result.model(x, y), function(None, x, y), rtol=1e-12, atol=1e-12)


EQUATIONS = {
    "bhwc,hkc->bhwk": ((2, 3, 5, 4), (3, 6, 4)),  # relative positions along one axis
    "bythwc,wkc->bythwk": ((2, 2, 3, 2, 5, 4), (5, 3, 4)),
    "bhij,bjhd->bihd": ((2, 3, 5, 4), (2, 4, 3, 6)),
    "ij,ik": ((5, 4), (5, 3)),
    "...ij,...jk": ((2, 3, 5, 4), (2, 3, 4, 6)),
    "b...c,kc->b...k": ((2, 3, 5, 4), (6, 4)),
    "bcij,bcij->b": ((2, 3, 5, 4), (2, 3, 5, 4)),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_an_equation_is_what_numpy_makes_of_it(equation):
    x, y = (random_input(*shape, seed=seed).double() for seed, shape in enumerate(EQUATIONS[equation]))
    _, result = taken(net(lambda m, x, y: torch.einsum(equation, x, y)), (x, y))
    wanted = np.einsum(equation, x.numpy(), y.numpy())
    np.testing.assert_allclose(result.model(x, y).numpy(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda m, x, y: torch.einsum("bij,bij->bij", x, y), ((2, 3, 4), (2, 3, 4))),
        (lambda m, x, y: torch.einsum("bij,bjk->bi", x, y), ((2, 3, 4), (2, 4, 5))),  # one tensor alone is summed
        (lambda m, x, y: torch.einsum("bii,bij->bj", x, y), ((2, 3, 3), (2, 3, 4))),  # a diagonal
        (lambda m, x, y: torch.einsum("bij,bjk->bik", x, y), ((1, 3, 4), (2, 4, 5))),  # a batch of one for all
        (lambda m, x, y: torch.einsum("ij,jk,kl->il", x, y, y.mT), ((3, 4), (4, 5))),
    ],
)
def test_other_equations_are_left(function, shapes):
    inputs = tuple(random_input(*shape) for shape in shapes)
    assert transform(net(function), inputs, patterns=[PATTERN]).report["applied_count"] == 0


def test_training_and_a_second_run():
    table = nn.Parameter(torch.ones(3, 7, 4))
    check_rewrite(net(lambda m, x: torch.einsum("bhwc,hkc->bhwk", x, m.table), table=table), [X], [PATTERN])


FREQUENCIES = torch.tensor([1.0, 0.1])


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_rotary_angles_stay_as_they_are(trace):
    """As language models compute them: of positions that are integers, with one frequency for each pair of channels."""

    def rotary(m, positions):
        angles = (m.frequencies[None, :, None].float() @ positions[:, None, :].float()).transpose(1, 2)
        return torch.cat((angles, angles), -1).cos()

    model = net(rotary)
    model.register_buffer("frequencies", FREQUENCIES)
    result = transform(model, (torch.arange(6).reshape(1, 6),), patterns=[PATTERN], trace=trace)
    assert applied(result) == []


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        # Positions in two dimensions, summed over both; whatever reads the angles.
        (lambda m, x: x.sum() * (m.grid(x) @ m.table), "positions or counts"),
        (lambda m, x: torch.cat(((x @ m.table).mul(6.28), x), -1).sin(), "angles"),
        (lambda m, x: x.to(torch.float32) @ x.mT.to(torch.float32), "computed in float32"),
        (lambda m, x: x.double().transpose(1, 2) @ x.double(), "computed in float32"),
    ],
)
def test_what_has_to_be_precise_is_left_with_the_reason(function, reason):
    model = net(function, grid=lambda x: torch.arange(x.shape[-2] * 2).reshape(-1, 2).float())
    model.register_buffer("table", torch.randn(2, 4))
    result = transform(model, (random_input(2, 3, 2),), patterns=[PATTERN])
    assert applied(result) == []
    assert reason in reasons(result)[0]


def test_shapes_have_to_be_known():
    result = transform(net(lambda m, x, y: x @ y), patterns=[PATTERN])
    assert applied(result) == [] and "give example inputs" in reasons(result)[0]


def test_an_attention_keeps_its_products():
    model = net(lambda m, x, y: (x @ x.mT).softmax(-1) @ x @ y)
    result = transform(model, (X, Y), patterns=[RecomposeAttentionPattern(), PATTERN])
    assert [name for name, *_ in applied(result)] == ["RecomposeAttentionPattern", "ActivationProductPattern"]


def test_both_factors_are_rounded():
    """To 8 bits, symmetrically: what integers give, times both scales."""
    x, y = random_input(2, 5, 4), random_input(2, 4, 6, seed=1)
    result = transform(net(lambda m, x, y: F.relu(x) @ y), (x, y), patterns=[PATTERN])
    quantized = quantize(result, [(x, y)], QuantConfig(), progress=False)
    assert len(quantization_report(quantized).quantized) == 2
    scales = [float(each.relu().max() if each is x else each.abs().max()) / 127 for each in (x, y)]
    integers = [(each / scale).round() for each, scale in zip((x.relu(), y), scales, strict=True)]
    wanted = integers[0] @ integers[1] * scales[0] * scales[1]
    torch.testing.assert_close(quantized(x, y), wanted, rtol=1e-5, atol=1e-5)
