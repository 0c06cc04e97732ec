"""The number formats that a backend's hardware has: what quantize takes where the user names none."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.backend import get_backend
from embedl_deploy.errors import PluginError, QuantizationError
from embedl_deploy.quantize import (
    LayerQuantConfig,
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
    from embedl_deploy.quantize import LayerQuantConfig, QuantConfig, TensorQuantConfig
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


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (QuantConfig(), TensorQuantConfig(power_of_two=True)),
        (QuantConfig(skip={nn.ReLU}, policy=lambda point: None), TensorQuantConfig(power_of_two=True)),
        (QuantConfig(weight=None), TensorQuantConfig(power_of_two=True)),
        (QuantConfig(activation=TensorQuantConfig()), TensorQuantConfig()),
    ],
)
def test_is_taken_for_what_a_configuration_leaves_out(acme, config, wanted):
    assert formats(quantize(acme(FIXED_POINT), [X], config)) == [wanted]


def test_none_and_no_hook_mean_the_cores_own(acme, install, describe):
    assert formats(quantize(acme("None"), [X])) == [TensorQuantConfig()]
    install("plain", describe, distribution="plain")
    plain = default_config("plain")
    assert plain == default_config(get_backend("plain")) == default_config(None)
    assert (plain.activation, plain.weight) == (TensorQuantConfig(), TensorQuantConfig(per_channel=True))


def test_what_it_leaves_out_itself_is_int8(acme):
    result = acme("QuantConfig(activation=None)")
    config = default_config("acme")
    assert (config.activation, config.weight) == (None, TensorQuantConfig(per_channel=True))
    with pytest.raises(QuantizationError, match="activations in float"):
        quantize(result, [X])


OVERRIDDEN = "QuantConfig(None, None, overrides={'*': LayerQuantConfig(TensorQuantConfig(n_bits=16), None)})"


def test_its_overrides_go_with_its_formats(acme):
    result = acme(OVERRIDDEN)
    assert formats(quantize(result, [X], QuantConfig(skip=[]))) == [TensorQuantConfig(n_bits=16)]
    assert formats(quantize(result, [X], QuantConfig(activation=TensorQuantConfig()))) == [TensorQuantConfig()]
    assert formats(
        quantize(result, [X], QuantConfig(overrides={"*": LayerQuantConfig(TensorQuantConfig(), None)}))
    ) == [TensorQuantConfig()]


def test_a_model_of_plain_patterns_takes_it_from_the_backend_that_is_named(acme):
    patterns = acme(FIXED_POINT) and get_backend("acme").patterns
    result = transform(nn.Sequential(nn.Linear(8, 4)), X, patterns=patterns)
    assert formats(quantize(result, [X])) == [TensorQuantConfig()]
    assert formats(quantize(result, [X], QuantConfig(backend="acme"))) == [TensorQuantConfig(power_of_two=True)]


def test_is_not_asked_for_when_the_backend_is_loaded(acme):
    assert acme("1 / 0").report["applied_count"] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "1 / 0",
            "fails in embedl_deploy_quantization_config: ZeroDivisionError.*Repair or uninstall acme;",
        ),
        ("'int8'", "returns 'int8' from embedl_deploy_quantization_config; expected a QuantConfig or None"),
    ],
)
def test_what_is_wrong_with_it_names_the_distribution(acme, given, message):
    with pytest.raises(PluginError, match=rf"Backend 'acme' \(from acme 1\.2\) {message}") as caught:
        quantize(acme(given), [X])
    assert (caught.value.plugin, caught.value.distribution) == ("acme", "acme 1.2")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return 1 / 0", "fails in embedl_deploy_quantization_config: ZeroDivisionError"),
        ("    return 8", "returns 8 from embedl_deploy_quantization_config; expected a QuantConfig or None"),
    ],
)
def test_an_extension_that_breaks_it_is_the_one_that_is_named(acme, install, body, message):
    install(
        "acme.ours",
        f"@hookimpl\ndef embedl_deploy_quantization_config():\n{body}\n",
        distribution="our-extension",
        version="3",
    )
    with pytest.raises(PluginError, match=rf"Extension 'acme\.ours' \(from our-extension 3\) {message}") as caught:
        quantize(acme(FIXED_POINT), [X])
    assert caught.value.distribution == "our-extension 3"


WRAPPER = """
@hookimpl(wrapper=True)
def embedl_deploy_quantization_config(backend):
    config = yield
    return QuantConfig(TensorQuantConfig(n_bits=16), config.weight)
"""


def test_an_extension_may_wrap_it(acme, install):
    install(
        "acme.ours",
        f"from embedl_deploy.quantize import QuantConfig, TensorQuantConfig\n{WRAPPER}",
        distribution="our-extension",
    )
    assert formats(quantize(acme(FIXED_POINT), [X])) == [TensorQuantConfig(n_bits=16)]


def test_what_fails_below_a_wrapper_is_named(acme, install):
    install("acme.ours", WRAPPER.replace("config.weight", "None"), distribution="our-extension")
    with pytest.raises(PluginError, match=r"Backend 'acme' \(from acme 1\.2\) fails"):
        quantize(acme("1 / 0"), [X])
