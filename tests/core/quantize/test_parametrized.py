"""Weights that parametrizations compute: every way to quantize them agrees with the float model."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from embedl_deploy import export_onnx, transform
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import quantize
from support.nets import random_input
from support.quantizable import METHODS

X = random_input(8, 4, 10, 10)
ROWS = random_input(16, 8) * torch.logspace(-2, 1, 8)
NORMS = [parametrizations.weight_norm, parametrizations.spectral_norm]
OPTIONS = METHODS | {
    "all": {"equalization": True, "smooth_quant": 0.5, "learned_rounding": True, "freeze_weights": True}
}


def convolutions(norm):
    torch.manual_seed(0)
    model = nn.Sequential(
        *(norm(nn.Conv2d(4, 8, 3)), nn.BatchNorm2d(8), nn.ReLU()),
        *(norm(nn.Conv2d(8, 8, 3)), nn.ReLU()),
    ).eval()
    model[1].running_var.fill_(4.0)
    return model, X


def products(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.LayerNorm(8), norm(nn.Linear(8, 8)), nn.ReLU(), norm(nn.Linear(8, 4))).eval(), ROWS


def relative(got, wanted):
    return float((got - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("build", [convolutions, products])
def test_quantized_model_agrees(build, norm, options):
    model, x = build(norm)
    wanted = model(x)
    quantized = quantize(transform(model, (x,), backend="tensorrt"), [x], progress=False, **options)
    assert relative(quantized(x), wanted) < 0.03
    assert torch.equal(model(x), wanted)
    assert sum(parametrize.is_parametrized(part) for part in model.modules()) == 2


@torch.no_grad()
@pytest.mark.parametrize("integer_weights", [False, True])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("build", [convolutions, products])
def test_exported_file_agrees(build, norm, integer_weights, tmp_path):
    model, x = build(norm)
    quantized = quantize(transform(model, (x,), backend="tensorrt"), [x], progress=False)
    path = export_onnx(quantized, x, tmp_path / "m.onnx", integer_weights=integer_weights, tolerance=None).path
    (got,) = run_onnx(path, x)
    assert relative(got, model(x)) < 0.03
