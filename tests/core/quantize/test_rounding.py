"""Moments of inputs far from zero, damping that is always enough, and the parameters that corrections leave."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantization_report, quantize
from embedl_deploy.quantize.accuracy.rounding import Moments, damped
from support.nets import random_input


def moments_of(exact, quantized, batches):
    moments = Moments.empty(1, exact.shape[1], exact)
    for pair in zip(exact.chunk(batches, 2), quantized.chunk(batches, 2), strict=True):
        moments.add(*pair)
    return moments


@pytest.mark.parametrize("batches", [1, 4])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_covariances_do_not_depend_on_the_mean(mean, batches):
    exact = random_input(1, 6, 64) + mean
    quantized = exact + 0.1 * random_input(1, 6, 64, seed=2)
    moments = moments_of(exact, quantized, batches)
    deviations = [(x - x.mean(-1, keepdim=True)).double() for x in (exact.double(), quantized.double())]
    square, cross = moments.covariances()
    torch.testing.assert_close(square.double(), deviations[1] @ deviations[1].mT / 64, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cross.double(), deviations[0] @ deviations[1].mT / 64, rtol=1e-4, atol=1e-4)
    for got, x in zip(moments.means(), (exact, quantized), strict=True):
        torch.testing.assert_close(got, x.mean(-1))


def test_damping_is_raised_until_it_is_enough():
    fine = torch.eye(3)[None]
    broken = torch.tensor([[[1.0, 2.5, 0.0], [2.5, 1.0, 0.0], [0.0, 0.0, 1.0]]])  # an eigenvalue of −1.5
    regular, damping = damped(torch.cat((fine, broken)))
    assert float(damping[0]) == pytest.approx(0.01)
    assert float(damping[1]) == pytest.approx(10.0)
    torch.linalg.cholesky(regular)


def test_a_covariance_that_is_not_finite_is_an_error():
    with pytest.raises(QuantizationError, match="Look for infinity, NaN or very large values"):
        damped(torch.full((1, 2, 2), float("inf")))


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 2, 32])
@pytest.mark.parametrize("mean", [0.0, 1000.0, 1e5])
def test_rounding_is_learnt_on_inputs_far_from_zero(mean, samples):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    x = mean + random_input(samples, 8)
    quantized = quantize(transform(model, (x,), backend="tensorrt"), [x], progress=False, learned_rounding=True)
    wanted = model(x)
    assert float((quantized(x) - wanted).abs().max() / wanted.abs().max()) < 0.03


@pytest.mark.parametrize("method", ["bias_correction", "learned_rounding"])
def test_corrected_parameters_are_trained_if_the_old_ones_were(method):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)).eval()
    model[0].weight.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    model[4].bias.requires_grad_(False)
    x = random_input(64, 8) + 1
    config = QuantConfig(weight=TensorQuantConfig(Precision.INT4, per_channel=True))  # there is enough to correct
    quantized = quantize(transform(model, (x,), backend="tensorrt"), [x], config, progress=False, **{method: True})
    assert not any(c.declined for c in quantization_report(quantized).corrections)
    assert {name.replace(".linear", ""): p.requires_grad for name, p in quantized.named_parameters()} == {
        "0.weight": False,
        "0.bias": True,
        "2.weight": False,
        "2.bias": False,  # a first bias takes the weight's
        "4.weight": True,
        "4.bias": False,
    }


@torch.no_grad()
def test_rounding_is_learnt_for_weights_of_other_types():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4, bias=False)).eval().double()
    x = random_input(32, 8).double()
    quantized = quantize(transform(model, (x,), backend="tensorrt"), [x], progress=False, learned_rounding=True)
    assert {parameter.dtype for parameter in quantized.parameters()} == {torch.float64}
    wanted = model(x)
    assert float((quantized(x) - wanted).abs().max() / wanted.abs().max()) < 0.03
