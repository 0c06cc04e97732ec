"""Layers whose hooks matter stay in float, and say so."""

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import quantization_report, quantize
from support.nets import random_input, scrambled
from support.quantizable import METHODS

X = random_input(8, 4, 8, 8)
PLACES = {"convolution": 0, "batch norm": 1, "second convolution": 3, "product": 5}


def model_with_hook(place, hook):
    torch.manual_seed(0)
    model = scrambled(
        nn.Sequential(
            *(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 8)),
        )
    ).eval()
    hook(model[place])
    return model


def adds_ten(module):
    module.register_forward_hook(lambda module, args, output: output + 10)


def negates_input(module):
    module.register_forward_pre_hook(lambda module, args: (-args[0],))


def relative(got, wanted):
    return float((got - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("hook", [adds_ten, negates_input])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_hooks_run(place, hook, options):
    model = model_with_hook(place, hook)
    quantized = quantize(transform(model, (X,), backend="tensorrt"), [X], progress=False, **options)
    assert relative(quantized(X), model(X)) < 0.03
    reasons = [point.rule for point in quantization_report(quantized).not_quantized]
    assert len(reasons) == 2  # input and weight
    assert all("would not run: remove them before the model is transformed" in reason for reason in reasons)


@torch.no_grad()
@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_hooks_of_an_activation_run_in_a_quantized_layer(options):
    model = model_with_hook(2, adds_ten)
    quantized = quantize(transform(model, (X,), backend="tensorrt"), [X], progress=False, **options)
    assert relative(quantized(X), model(X)) < 0.03
    assert not quantization_report(quantized).not_quantized


@torch.no_grad()
@pytest.mark.parametrize(
    "computed",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda module: torch.nn.utils.prune.l1_unstructured(module, "weight", 0.5),
    ],
    ids=["weight_norm", "spectral_norm", "prune"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_hooks_compute_are_not_read(computed):
    model = model_with_hook(0, computed)
    result = transform(model, (X,), backend="tensorrt")
    quantized = quantize(result, [X], progress=False, freeze_weights=True)
    assert relative(quantized(X), model(X)) < 0.03
    assert {point.path for point in quantization_report(quantized).not_quantized} == {"0"}


@torch.no_grad()
def test_equalization_and_smoothing_leave_hooked_layers_alone():
    model = model_with_hook(2, adds_ten)  # 10 is added between the two convolutions
    result = transform(model, (X,), backend="tensorrt")
    report = quantization_report(quantize(result, [X], progress=False, equalization=True))
    assert [c.outcome for c in report.corrections] == [
        "declined: 0 has hooks, which may not let factors through; remove them"
    ]


def test_nothing_but_hooked_layers_is_an_error_that_says_so():
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    adds_ten(model[0])
    x = random_input(3, 4)
    with pytest.raises(QuantizationError, match=r"hooks of linear \(Linear\) would not run"):
        quantize(transform(model, (x,), backend="tensorrt"), [x], progress=False)
