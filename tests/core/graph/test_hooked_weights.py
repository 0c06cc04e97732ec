"""A weight that a hook computes is read, by others too, where the hook leaves it."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from embedl_deploy import transform
from support.nets import net, random_input

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
X = random_input(3, 4)
FORMS = {
    "after the call": lambda m, x: torch.relu(m.l(x)) @ m.l.weight,
    "twice": lambda m, x: m.l(x) @ m.l.weight @ m.l.weight,
    "by a function": lambda m, x: m.l(x) + nn.functional.linear(x, m.l.weight),
    "called twice": lambda m, x: m.l(torch.relu(m.l(x))) @ m.l.weight,
}


def gradients(model):
    model.zero_grad()
    y = model(X)
    y.square().sum().backward()
    return y.detach(), {name.rpartition(".")[2]: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("form", FORMS)
def test_outputs_and_gradients_follow_the_parameters(form, norm):
    model = net(FORMS[form], l=nn.Linear(4, 4))
    norm(model.l)
    with torch.no_grad():
        model(X)  # until then the weight is not one that can be copied
    transformed = transform(copy.deepcopy(model), X, backend="tensorrt").model
    for _ in range(2):
        (y, expected), (found, grads) = gradients(model), gradients(transformed)
        torch.testing.assert_close(found, y)
        assert grads.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(grads[name], gradient)
        with torch.no_grad():  # a step of training
            for parameter in (*model.parameters(), *transformed.parameters()):
                parameter.mul_(0.5)


@pytest.mark.parametrize(
    "norm",
    [nn.utils.weight_norm, nn.utils.spectral_norm, partial(prune.random_unstructured, name="weight", amount=0.5)],
)
def test_a_model_that_was_never_run(norm):
    model = net(lambda m, x: torch.relu(m.l(x)), l=nn.Linear(4, 4)).eval()
    norm(model.l)  # the weight has a gradient until it is computed in a call
    result = transform(model, X, backend="tensorrt")
    torch.testing.assert_close(result.model(X), model(X))


@pytest.mark.parametrize("layer", [lambda: nn.utils.weight_norm(nn.Linear(4, 4)), lambda: nn.GRU(4, 4)])
def test_torch_export_does_not_warn_of_computed_weights(layer):
    model = net(lambda m, x: m.l(x), l=layer()).eval()
    transform(model, X, backend="tensorrt", trace="export")  # a warning is an error
