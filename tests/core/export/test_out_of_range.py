"""Where the numbers of a model leave the range of their type."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.export.out_of_range import run_watched
from support.nets import net, random_input

X = random_input(4, 8)


def originals(model, *inputs):
    return dict(model.named_parameters()) | {f"input {i}": x for i, x in enumerate(inputs)}


def watched(model, x, traced):
    model = transform(model, patterns=[]).model if traced else model
    before = {name: tensor.clone() for name, tensor in originals(model, x).items()}
    return run_watched(model.half(), (x.half(),), {}, before)


@pytest.mark.parametrize("traced", [False, True])
class TestWatched:
    def test_nothing_leaves(self, traced):
        assert watched(net(lambda self, x: self.fc(x), fc=nn.Linear(8, 4)), X, traced)[1] is None

    def test_the_first_operator_is_named_with_its_magnitude(self, traced):
        model = net(lambda self, x: self.fc(x).pow(2).sum(), fc=nn.Linear(8, 4))
        nn.init.constant_(model.fc.weight, 100.0), nn.init.zeros_(model.fc.bias)
        _, left = watched(model, torch.ones(1, 8), traced)
        assert str(left).endswith("reaches 6.4e+05; the largest float16 number is 65504")
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
        assert "div" in left.place and str(left).endswith(
            "is infinite or NaN in float16, although it is computed from finite numbers"
        )

    def test_a_mask_is_no_overflow_beside_one(self, traced):
        model = net(lambda self, x: torch.where(x > 3, self.fc.bias, x).softmax(-1) * (x * 1e6), fc=nn.Linear(8, 1))
        nn.init.constant_(model.fc.bias, -1e9)
        _, left = watched(model, torch.arange(6.0)[None], traced)
        assert left.largest == pytest.approx(5e6)
