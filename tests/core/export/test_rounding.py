"""Models whose values have fewer digits."""

import math

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.export.rounding import rounded_to, run_rounded
from support.nets import net, random_input

X = random_input(4, 8)


@pytest.mark.parametrize(
    ("digits", "given", "wanted"),
    [(3, 1.1, 1.0), (3, 1.2, 1.25), (3, -1.2, -1.25), (2, 7.0, 8.0), (11, 65519.0, 65504.0), (11, 3e-20, 3e-20)],
)
def test_rounds_to_binary_digits_at_any_magnitude(digits, given, wanted):
    assert float(rounded_to(digits)(torch.tensor(given))) == pytest.approx(wanted, rel=2**-12 if digits == 11 else 0)


def test_rounds_as_float16_does_and_keeps_what_has_no_digits():
    x = torch.randn(1000)
    assert torch.equal(rounded_to(11)(x), x.half().float())
    odd = torch.tensor([math.inf, -math.inf, torch.finfo(torch.float32).min, 0.0])
    assert torch.equal(rounded_to(11)(odd), odd)
    assert torch.equal(rounded_to(11)(torch.arange(9)), torch.arange(9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounds_to_the_nearest_however_it_lies_in_memory_and_whatever_is_beside_it(dtype):
    x = (random_input(16, 64) * 10.0 ** torch.arange(-8, 8)[:, None]).to(dtype).t()
    mantissa, exponent = torch.frexp(x)
    wanted = torch.ldexp((mantissa * 2**9).round() / 2**9, exponent)
    assert torch.equal(rounded_to(9)(x), wanted)
    for odd in (math.inf, math.nan, torch.finfo(dtype).min):
        beside = torch.cat([x, torch.full((1, 16), odd, dtype=dtype)])
        assert torch.equal(rounded_to(9)(beside)[:-1], wanted)


def test_another_grid_is_as_fine_and_keeps_what_is_exact():
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    other = rounded_to(8, 1.5)(x)
    assert not torch.equal(other, rounded_to(8)(x))
    assert float(((other - x) / x).abs().max()) <= 2**-8
    exact = rounded_to(8)(x)
    assert torch.equal(rounded_to(8, 1.5)(exact), exact)


@pytest.mark.parametrize("traced", [False, True])
def test_every_value_of_a_run_is_rounded(traced):
    model = net(lambda self, x: (self.fc(x) * 3).add_(1), fc=nn.Linear(8, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run = transform(model, patterns=[]).model if traced else model
    (found,) = run_rounded(run, (X,), {}, 6)
    short = rounded_to(6)
    product = short(nn.functional.linear(short(X), short(model.fc.weight), short(model.fc.bias)))
    torch.testing.assert_close(found, short(short(product * 3) + 1), rtol=2**-6, atol=0)
    assert torch.equal(short(found), found)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "choose",
    [
        lambda x: x.topk(3).indices,
        lambda x: x.topk(3, 1, True, False).indices,
        lambda x: torch.topk(x, k=3, dim=-1).indices,
        lambda x: x.sort(descending=True).indices[:, :3],
    ],
)
def test_equal_values_come_in_order_of_their_indices(choose):
    (found,) = run_rounded(net(lambda _self, x: choose(x)), (torch.zeros(2, 400),), {}, None)
    assert found.tolist() == [[0, 1, 2]] * 2
