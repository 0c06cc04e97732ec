"""The number formats that a backend's hardware has: what quantize takes where the user names none."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.backend import get_backend
from embedl_deploy.errors import PluginError
from embedl_deploy.quantize import (
    QuantConfig,
    TensorQuantConfig,
    default_config,
    insert_qdq,
    quantization_report,
    quantize,
)

FUSION = """
class FusedLinear(FusedModule):
    inputs_to_quantize = {0}

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

class LinearPattern(Pattern):
    tree = (nn.Linear,)
    qdq_points = {QDQPoint.INPUT}
    graft = FusedLinear

@hookimpl
def embedl_deploy_fusions():
    return [LinearPattern()]

@hookimpl
def embedl_deploy_quantization_config(backend):
    from embedl_deploy.quantize import QuantConfig, TensorQuantConfig
    assert backend == "acme"
    return GIVEN
"""
IMPORTS = "from embedl_deploy.patterns import QDQPoint\n"
FIXED_POINT = "QuantConfig(TensorQuantConfig(power_of_two=True), None)"
X = torch.randn(2, 8)


@pytest.fixture
def acme(install, describe):
    def run(given):
        install("acme", IMPORTS + describe + FUSION.replace("GIVEN", given))
        return transform(nn.Sequential(nn.Linear(8, 4)), X, backend="acme")

    return run


def formats(model):
    return [point.format for point in quantization_report(model).points if point.quantized]


def test_is_taken_where_the_user_names_none(acme):
    result = acme(FIXED_POINT)
    assert formats(insert_qdq(result.model, result.matches)) == [TensorQuantConfig(power_of_two=True)]
    (scale,) = [value for name, value in quantize(result, [X]).state_dict().items() if name.endswith("scale")]
    assert float(torch.log2(scale)).is_integer()


def test_is_not_taken_where_the_user_names_one(acme):
    assert formats(quantize(acme(FIXED_POINT), [X], QuantConfig())) == [TensorQuantConfig()]


def test_none_and_no_hook_mean_the_cores_own(acme, install, describe):
    assert formats(quantize(acme("None"), [X])) == [TensorQuantConfig()]
    install("plain", describe, distribution="plain")
    assert default_config("plain") == default_config(get_backend("plain")) == default_config(None) == QuantConfig()


def test_is_not_asked_for_when_the_backend_is_loaded(acme):
    assert acme("1 / 0").report["applied_count"] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1 / 0", "fails in embedl_deploy_quantization_config: ZeroDivisionError.*Pass a configuration"),
        ("'int8'", "returns 'int8' from embedl_deploy_quantization_config; expected a QuantConfig or None"),
    ],
)
def test_what_is_wrong_with_it_names_the_distribution(acme, given, message):
    with pytest.raises(PluginError, match=rf"Backend 'acme' \(from acme 1\.2\) {message}") as caught:
        quantize(acme(given), [X])
    assert (caught.value.plugin, caught.value.distribution) == ("acme", "acme 1.2")
