"""What users hang on parameters is in every copy: masks of gradients, attributes."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.modules import with_parameters
from embedl_deploy.quantize import freeze, quantize
from support.nets import random_input

X = random_input(8, 4)


def double(weight):
    weight.grad.mul_(2)


class Masked(nn.Module):
    """Pruned weights, which stay pruned in training; what was seen of their gradients is counted in the model."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.mask, self.seen = (torch.rand(4, 4) > 0.5).float(), []
        self.first.weight.register_hook(self.masked)
        self.first.weight.register_post_accumulate_grad_hook(double)
        self.first.weight.sort = "pruned"

    def masked(self, gradient):
        self.seen.append(1)
        return gradient * self.mask

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def gradient(model, weight):
    model.zero_grad()
    model(X).square().sum().backward()
    return weight.grad


@pytest.fixture(scope="module")
def model():
    return Masked().eval()


def test_a_copy_has_the_hooks_with_what_they_are_bound_to(model):
    copied = deep_copy(model)
    wanted = gradient(model, model.first.weight)
    assert torch.count_nonzero(wanted) < 16 and copied.first.weight.sort == "pruned"
    seen = len(model.seen)
    copied.mask.zero_()
    assert torch.equal(gradient(copied, copied.first.weight), torch.zeros(4, 4))
    assert len(model.seen) == seen, "the hook is bound to the copy's module"
    assert not copied.second.weight._backward_hooks


def test_hooks_of_frozen_and_of_shared_parameters_are_copied_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[0].weight.register_hook(lambda gradient: gradient * 3)
    model[0].weight.requires_grad_(False)
    weight = deep_copy(model)[0].weight
    assert not weight.requires_grad
    weight.requires_grad_(True).sum().backward()
    assert torch.equal(weight.grad, torch.full((4, 4), 3.0))


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_transformed_and_quantized_models_train_as_the_original(model, trace):
    result = transform(model, X, backend="tensorrt", trace=trace)
    assert not [note for note in result.report["notes"] if "hooks" in note]
    wanted = gradient(model, model.first.weight)
    torch.testing.assert_close(gradient(result.model, result.model.get_parameter("first.linear.weight")), wanted)
    for options in ({}, {"smooth_quant": True}, {"learned_rounding": True}):
        quantized = quantize(result, [X], progress=False, **options)
        found = gradient(quantized, quantized.get_parameter("first.linear.weight"))
        assert not torch.count_nonzero(found[model.mask == 0]) and torch.count_nonzero(found), options
    freeze(quantized)


def test_what_takes_another_shape_is_told():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(16, 2)).eval()
    model[2].weight.register_hook(lambda gradient: gradient * torch.ones(2, 16))
    report = transform(model, torch.randn(2, 3, 3, 3), backend="tensorrt").report
    (note,) = (note for note in report["notes"] if "hooks" in note)
    assert note.startswith("gradient hooks are lost, because") and ": 2.weight. Register them" in note
    assert "note: gradient hooks are lost" in str(report)


def test_a_module_with_new_parameters_has_the_hooks_of_those_of_their_shape(model):
    new = with_parameters(model.first, torch.ones(4, 4), torch.ones(4))
    new.weight.sum().backward()
    assert torch.equal(new.weight.grad, 2 * model.mask)
    assert not with_parameters(model.first, torch.ones(2, 4), None).weight._backward_hooks
