"""Which places for quantizers a fused module computes with."""

import pytest
import torch
from torch import nn

from embedl_deploy.modules import FusedModule, WeightFakeQuantize
from embedl_deploy.quantize.calibration.flow import watching_places


class Product(FusedModule):
    """Two weights and a way to compute with each; what is noted of its calls may not change."""

    def __init__(self, compute):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.eye(3)), nn.Parameter(torch.zeros(3, 3))
        self.first_quant, self.second_quant = (WeightFakeQuantize(nn.Identity()) for _ in range(2))
        self.compute, self.calls = compute, 0

    def forward(self, x):
        self.calls += 1
        return self.compute(x, self.first_quant(self.first), self.second_quant(self.second))


def written_into(x, first, second):
    y = torch.zeros(2, 3)
    torch.mm(x, first, out=y[:])
    return y.add_(x @ second)


def in_numpy(x, first, second):
    return torch.from_numpy(x.numpy() @ first.numpy()) + torch.from_numpy(second.numpy().sum(keepdims=True)[0])


@pytest.mark.parametrize(
    ("compute", "ignored"),
    [
        (lambda x, first, second: x @ first + x @ second, set()),
        (lambda x, first, second: (x.mul_(0) @ first, [x @ second]), set()),  # zeros: only the way counts
        (lambda x, first, second: x @ first.t()[:2].t().contiguous() @ second.view(-1)[:6].view(2, 3), set()),
        (written_into, set()),
        (in_numpy, set()),
        (lambda x, first, second: (first @ second, x.relu_())[1], {"first_quant", "second_quant"}),
        (lambda x, first, second: x @ first * second.shape[0], {"second_quant"}),
    ],
)
@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.inference_mode])
def test_places_that_the_output_does_not_depend_on(compute, ignored, grad_mode):
    model = nn.Sequential(Product(compute))
    x = torch.arange(6.0).reshape(2, 3) - 2
    with grad_mode():
        wanted = model(x.clone())
        with watching_places(model) as watches:
            torch.testing.assert_close(model(x.clone()), wanted, rtol=0, atol=0)
    assert watches[model[0]].ignored == ignored
    assert model[0].calls == 2, "what the second look did to the module was not put back"
    assert "forward" not in vars(model[0]) and not model[0].first_quant._forward_hooks


def test_one_call_that_uses_a_place_is_enough():
    module = Product(lambda x, first, second: x @ first if bool(x.sum() > 0) else x @ first + x @ second)
    with torch.no_grad(), watching_places(module) as watches:
        module(torch.ones(2, 3))
        assert watches[module].ignored == {"second_quant"}
        module(-torch.ones(2, 3))
    assert watches[module].ignored == set()
