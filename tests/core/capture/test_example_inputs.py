"""Example inputs."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.capture import normalize_args
from embedl_deploy.export.runtime import run_onnx
from support.nets import random_input
from support.small_patterns import PATTERNS


class Cross(nn.Module):
    """Attention, of which examples are often one tensor given three times."""

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, q, k, v):
        return torch.softmax(self.q(q) @ self.k(k).transpose(1, 2), -1) @ v


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_one_tensor_for_several_inputs_is_no_promise_that_they_are_equal(trace, tmp_path):
    model, x = Cross().eval(), random_input(2, 3, 4)
    others = [random_input(2, 3, 4, seed=seed) for seed in (1, 2, 3)]
    wanted = model(*others)
    result = transform(model, (x, x, x), patterns=PATTERNS, trace=trace)
    torch.testing.assert_close(result.model(*others), wanted)
    export_onnx(result, (x, x, x), tmp_path / "m.onnx")
    torch.testing.assert_close(run_onnx(tmp_path / "m.onnx", *others)[0], wanted, rtol=1e-4, atol=1e-5)


def test_a_tensor_given_twice_is_copied_wherever_it_is():
    x = random_input(2).requires_grad_()
    (first, inside), named = normalize_args((x, [x]), {"mask": x})
    assert first is x
    for copy in (inside[0], named["mask"]):
        assert copy is not x and copy.requires_grad and copy.is_leaf
        assert torch.equal(copy, x)


def test_what_was_computed_with_gradients_has_them_no_more():
    leaf, computed = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True) * 2
    (one, other), _ = normalize_args((leaf, computed), None)
    assert one is leaf
    assert other.is_leaf and other.requires_grad and torch.equal(other, computed)
