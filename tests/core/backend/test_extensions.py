"""Extensions: patterns that another distribution adds to a backend."""

import logging

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.backend import get_backend, list_backends
from embedl_deploy.errors import PluginError
from embedl_deploy.quantize import QuantConfig, quantize

EXTENSION = """
class AcmeConv(FusedModule):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv(x)

class AcmeConvPattern(Pattern):
    tree = (nn.Conv2d,)
    graft = AcmeConv

@{marker}
def embedl_deploy_fusions(backend):
    assert backend == "tensorrt"
    return [AcmeConvPattern()]
"""


def kind_of_first(model, backend):
    return type(transform(model, backend=backend).model.get_submodule("0")).__name__


def test_its_fusion_wins(install):
    assert kind_of_first(nn.Sequential(nn.Conv2d(3, 4, 3)), "tensorrt") == "FusedConvBN"
    install("tensorrt.acme", EXTENSION.format(marker="hookimpl"))
    backend = get_backend("tensorrt")
    assert backend.fusions[0].name == "AcmeConvPattern"
    assert len(backend.fusions) > 1
    assert backend.extensions == ("tensorrt.acme (acme 1.2)",)
    assert (backend.info.title, backend.origin.split()[0]) == ("NVIDIA TensorRT", "embedl-deploy-tensorrt")
    assert kind_of_first(nn.Sequential(nn.Conv2d(3, 4, 3)), "tensorrt") == "AcmeConv"
    assert list_backends()["tensorrt.acme"].usable


def test_trylast_puts_it_behind(install):
    install("tensorrt.acme", EXTENSION.format(marker="hookimpl(trylast=True)"))
    assert get_backend("tensorrt").fusions[-1].name == "AcmeConvPattern"
    assert kind_of_first(nn.Sequential(nn.Conv2d(3, 4, 3)), "tensorrt") == "FusedConvBN"


def test_a_backend_that_tries_first_stays_before_its_extensions(install, describe):
    own = EXTENSION.replace('"tensorrt"', '"acme"').replace("AcmeConv", "OwnConv")
    install("acme", describe + own.format(marker="hookimpl(tryfirst=True)"))
    more = EXTENSION.replace('"tensorrt"', '"acme"').format(marker="hookimpl")
    install("acme.more", more, distribution="acme-more")
    assert [pattern.name for pattern in get_backend("acme").fusions] == ["OwnConvPattern", "AcmeConvPattern"]


def test_other_backends_do_not_get_it(install):
    install("tensorrt.acme", EXTENSION.format(marker="hookimpl"))
    assert "AcmeConvPattern" not in [pattern.name for pattern in get_backend("sensai").patterns]
    assert get_backend("sensai").extensions == ()


def test_it_is_no_backend_of_its_own(install):
    install("tensorrt.acme", EXTENSION.format(marker="hookimpl"))
    with pytest.raises(LookupError, match=r"No backend 'tensorrt\.acme' is installed"):
        get_backend("tensorrt.acme")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('no driver')", "cannot be imported: ImportError: no driver"),
        ("@hookimpl\ndef embedl_deploy_fusions():\n    return [7]", "7 is no embedl_deploy.patterns.Pattern"),
        ("@hookimpl\ndef embedl_deploy_fusions(nope):\n    return []", "has a wrong hook"),
    ],
)
def test_a_broken_one_leaves_the_backend_usable(install, code, reason, caplog):
    install("tensorrt.acme", code)
    with caplog.at_level(logging.WARNING, logger="embedl_deploy"):
        backend = get_backend("tensorrt")
    assert backend.extensions == ()
    assert kind_of_first(nn.Sequential(nn.Conv2d(3, 4, 3)), "tensorrt") == "FusedConvBN"
    (warning,) = caplog.messages
    assert warning.startswith("Extension 'tensorrt.acme' (from acme 1.2) ")
    assert reason in warning
    statuses = list_backends()
    assert statuses["tensorrt"].usable
    assert statuses["tensorrt.acme"].error == warning


def test_two_of_one_name_both_take_part(install):
    install("tensorrt.acme", EXTENSION.format(marker="hookimpl"))
    second = EXTENSION.replace("AcmeConv", "RivalConv").format(marker="hookimpl")
    install("tensorrt.acme", second, distribution="rival", version="3")
    backend = get_backend("tensorrt")
    assert set(backend.extensions) == {"tensorrt.acme (acme 1.2)", "tensorrt.acme (rival 3)"}
    assert {"AcmeConvPattern", "RivalConvPattern"} <= {pattern.name for pattern in backend.fusions}


def test_its_explanation_is_asked_first(install):
    install("sensai.acme", "@hookimpl\ndef embedl_deploy_explain_unfused(node):\n    return 'Acme says no'")
    report = transform(nn.Sequential(nn.GELU()), backend="sensai").report
    assert report.unsupported == {"_0": "Acme says no"}


def test_it_may_leave_the_explanation_to_the_backend(install):
    install("sensai.acme", "@hookimpl\ndef embedl_deploy_explain_unfused(node):\n    return None")
    report = transform(nn.Sequential(nn.GELU()), backend="sensai").report
    assert report.unsupported == {"_0": "GELU: the engine has only ReLU"}


POLICY = """
@hookimpl
def embedl_deploy_quantization_policies():
    return {policies}
"""


class TestPolicies:
    def test_the_backends_default_stays_the_default(self, install):
        before = list(get_backend("tensorrt").policies)
        install("tensorrt.acme", POLICY.format(policies="{'acme': lambda point: 'Acme says no'}"))
        policies = get_backend("tensorrt").policies
        assert list(policies) == [*before, "acme"]
        assert policies["acme"](None) == "Acme says no"
        assert policies["all"].__name__ == "quantize_all"

    def test_one_of_the_same_name_takes_the_place_of_the_backends(self, install):
        before = list(get_backend("tensorrt").policies)
        install("tensorrt.acme", POLICY.format(policies="{'all': lambda point: 'Acme says no'}"))
        policies = get_backend("tensorrt").policies
        assert list(policies) == before
        assert policies["all"](None) == "Acme says no"

    def test_a_broken_one_leaves_the_backends(self, install):
        before = list(get_backend("tensorrt").policies)
        install("tensorrt.acme", POLICY.format(policies="{'all': 7}"))
        assert list(get_backend("tensorrt").policies) == before
        assert "returns 7 as policy 'all'" in list_backends()["tensorrt.acme"].error

    @pytest.mark.parametrize(
        ("policy", "what"),
        [
            ("lambda point: point.nothing", "fails at 0 input 0: AttributeError"),
            ("lambda point: 7", "returned 7 at 0 "),
        ],
    )
    def test_one_that_fails_when_it_is_asked_is_named_with_its_distribution(self, install, policy, what):
        install("tensorrt.acme", POLICY.format(policies=f"{{'acme': {policy}}}"))
        x = torch.randn(1, 3, 8, 8)
        result = transform(nn.Sequential(nn.Conv2d(3, 4, 3)), x, backend="tensorrt")
        with pytest.raises(PluginError, match=rf"Policy tensorrt's 'acme' \(from acme 1\.2\) {what}.*uninstall acme"):
            quantize(result, [x], QuantConfig(policy="acme"))
        quantize(result, [x], QuantConfig(policy="all"))
