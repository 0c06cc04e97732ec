"""Fixed point: what the engine's own configuration and policy make of a model."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.backend import get_backend
from embedl_deploy.quantize import Quantizer, quantization_report, quantize
from embedl_deploy_sensai_stub.policy import fixed_point
from embedl_deploy_sensai_stub.quantization import SENSAI_QUANT_CONFIG
from support.nets import random_input, scrambled

X = random_input(4, 3, 8, 8)


def network():
    return scrambled(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5)),
        )
    ).eval()


def quantized(config=SENSAI_QUANT_CONFIG):
    return quantize(transform(network(), (X,), backend="sensai"), [X], config, progress=False)


def test_the_policy_is_the_backends():
    assert get_backend("sensai").policies == {"fixed_point": fixed_point}
    report = quantization_report(quantized())
    assert report.policy == "sensai's 'fixed_point'"
    assert {(p.module, p.rule.rpartition(": ")[2]) for p in report.not_quantized} == {
        ("SensaiMaxPool", "max-pooling makes no new numbers")
    }
    assert len(report.quantized) == 6


@pytest.mark.parametrize("config", [SENSAI_QUANT_CONFIG, None], ids=["given", "by default"])
def test_scales_are_powers_of_two(config):
    scales = [part.scale for part in quantized(config).modules() if isinstance(part, Quantizer)]
    assert len(scales) == 6
    assert all(torch.equal(torch.frexp(scale).mantissa, torch.full_like(scale, 0.5)) for scale in scales)


def test_numbers_are_close_and_the_file_agrees(tmp_path):
    model, x = quantized(), X
    wanted = network()(x)
    assert float((model(x) - wanted).detach().norm() / wanted.detach().norm()) < 0.1
    written = export_onnx(model, x, tmp_path / "sensai.onnx", integer_weights=True)
    assert written.difference.max_rel < 0.02
