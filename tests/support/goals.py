"""EfficientNet-Lite0 with ImageNet weights in INT8, judged on crops that it was not calibrated with."""

from typing import Any

import torch

from embedl_deploy import transform
from embedl_deploy.quantize import CalibrationMethod, QuantConfig, Quantizer, TensorQuantConfig, quantization_report
from network import load_network
from quantization import make_study


def assert_goals(policy: str, sqnr: float, agreement: float, **methods: Any) -> None:
    """The methods reach so many dB of the logits, and that share of likeliest classes."""
    network = load_network()
    study = make_study(network)
    result = transform(network, study.held_out[:2], backend="tensorrt")
    activation = TensorQuantConfig(calibration_method=CalibrationMethod.MSE)
    quantized = study.quantized(result, QuantConfig(activation, policy=policy), **methods)
    found = study.accuracy(quantized)
    assert found.sqnr >= sqnr
    assert found.agreement >= agreement
    # some channels are zero throughout
    assert all(torch.isfinite(part.scale).all() for part in quantized.modules() if isinstance(part, Quantizer))
    weights = [point for point in quantization_report(quantized).points if point.label == "weight"]
    in_float = [point for point in weights if not point.quantized]
    assert len(weights) == 50
    assert bool(in_float) is (policy == "mixed")
