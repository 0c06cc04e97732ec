"""EfficientNet-Lite0 with ImageNet weights in INT8: as accurate as promised on crops it was not calibrated with."""

import pytest
import torch

from embedl_deploy import transform
from embedl_deploy.quantize import CalibrationMethod, QuantConfig, Quantizer, TensorQuantConfig, quantization_report
from network import load_network
from quantization import make_study


@pytest.fixture(scope="module")
def network():
    return load_network()


@pytest.fixture(scope="module")
def study(network):
    return make_study(network)


@pytest.fixture(scope="module")
def result(network, study):
    return transform(network, study.held_out[:2], backend="tensorrt")


@pytest.mark.parametrize(("policy", "sqnr", "agreement"), [("all", 22.0, 0.92), ("mixed", 25.0, 0.92)])
def test_bias_correction_reaches_the_goals(result, study, policy, sqnr, agreement):
    activation = TensorQuantConfig(calibration_method=CalibrationMethod.MSE)
    quantized = study.quantized(result, QuantConfig(activation, policy=policy), bias_correction=True)
    found = study.accuracy(quantized)
    assert found.sqnr >= sqnr
    assert found.agreement >= agreement
    # some channels are zero throughout
    assert all(torch.isfinite(part.scale).all() for part in quantized.modules() if isinstance(part, Quantizer))
    weights = [point for point in quantization_report(quantized).points if point.label == "weight"]
    in_float = [point for point in weights if not point.quantized]
    assert len(weights) == 50
    assert bool(in_float) is (policy == "mixed")
