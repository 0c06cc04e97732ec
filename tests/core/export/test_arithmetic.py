"""Models with fewer digits, and where numbers leave their type."""

import math

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.export.arithmetic import rounded_to, run_rounded, run_watched
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


def plain_or_traced(model, traced):
    return transform(model, patterns=[]).model if traced else model


@pytest.mark.parametrize("traced", [False, True])
def test_every_value_of_a_run_is_rounded(traced):
    model = net(lambda self, x: (self.fc(x) * 3).add_(1), fc=nn.Linear(8, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (found,) = run_rounded(plain_or_traced(model, traced), (X,), {}, 6)
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


def originals(model, *inputs):
    return dict(model.named_parameters()) | {f"input {i}": x for i, x in enumerate(inputs)}


def watched(model, x, traced):
    model = plain_or_traced(model, traced)
    half = plain_or_traced(model, False) if not traced else model
    before = {name: tensor.clone() for name, tensor in originals(model, x).items()}
    return run_watched(half.half(), (x.half(),), {}, before)


@pytest.mark.parametrize("traced", [False, True])
class TestWatched:
    def test_nothing_leaves(self, traced):
        assert watched(net(lambda self, x: self.fc(x), fc=nn.Linear(8, 4)), X, traced)[1] is None

    def test_the_first_operator_is_named_with_its_magnitude(self, traced):
        model = net(lambda self, x: self.fc(x).pow(2).sum(), fc=nn.Linear(8, 4))
        nn.init.constant_(model.fc.weight, 100.0), nn.init.zeros_(model.fc.bias)
        _, left = watched(model, torch.ones(1, 8), traced)
        assert str(left).endswith("reaches 6.4e+05, and float16 ends at 65504")
        assert "pow" in left.place

    def test_the_module_is_named(self, traced):
        model = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
        nn.init.constant_(model[0].weight, 10000.0), nn.init.zeros_(model[0].bias)
        _, left = watched(model, torch.ones(1, 8), traced)
        assert "in module '0'" in left.place and left.largest == pytest.approx(80000, rel=1e-2)

    def test_a_parameter_is_named(self, traced):
        model = net(lambda self, x: self.fc(x), fc=nn.Linear(8, 4))
        nn.init.constant_(model.fc.weight, 1e6)
        assert str(watched(model, X, traced)[1]).startswith("the tensor 'fc.weight' reaches 1e+06")

    def test_an_input_is_named(self, traced):
        model = net(lambda self, x: x / x.amax(), fc=nn.Linear(8, 4))
        assert str(watched(model, torch.full((2, 2), 1e5), traced)[1]).startswith("input 0 reaches 1e+05")

    def test_what_becomes_zero_is_named(self, traced):
        model = net(lambda self, x: x * 1e-5 * 1e-5, fc=nn.Linear(8, 4))
        _, left = watched(model, torch.ones(2), traced)
        assert "float16 has nothing between 0 and 6e-08" in str(left)

    def test_a_quotient_of_what_has_become_zero_is_named(self, traced):
        model = net(lambda self, x: (y := x * 1e-8) / y.norm(dim=1, keepdim=True), fc=nn.Linear(8, 4))
        x = torch.ones(2, 4)
        x[0] = 1e4  # so that it is not all zero
        _, left = watched(model, x, traced)
        assert "div" in left.place and str(left).endswith("is infinite or no number in float16, of finite numbers")

    def test_a_mask_is_no_overflow_beside_one(self, traced):
        model = net(lambda self, x: torch.where(x > 3, self.fc.bias, x).softmax(-1) * (x * 1e6), fc=nn.Linear(8, 1))
        nn.init.constant_(model.fc.bias, -1e9)
        _, left = watched(model, torch.arange(6.0)[None], traced)
        assert left.largest == pytest.approx(5e6)
