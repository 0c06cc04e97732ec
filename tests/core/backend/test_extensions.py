"""Extensions: patterns that another distribution adds to a backend."""

import logging

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.backend import get_backend, list_backends
from embedl_deploy.cli import main
from embedl_deploy.errors import PluginError
from embedl_deploy.quantize import QuantConfig, insert_qdq, quantization_report, quantize

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
        ("@hookimpl\ndef embedl_deploy_fusions():\n    return [7]", "7 is not an embedl_deploy.patterns.Pattern"),
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
    assert [pattern.name for pattern in backend.fusions][:2] == ["AcmeConvPattern", "RivalConvPattern"]
    statuses = list_backends()
    assert [name for name in statuses if name.startswith("tensorrt.")] == ["tensorrt.acme", "tensorrt.acme (rival 3)"]
    assert (
        "Extension 'tensorrt.acme' is provided by two distributions, acme 1.2 and rival 3: both take part. Uninstall "
        "the one that is not meant."
    ) in statuses["tensorrt"].conflicts


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

    def test_those_of_one_name_may_each_object(self, install):
        before = list(get_backend("tensorrt").policies)
        first = "lambda point: 'Acme says no' if point.kind.name == 'WEIGHT' else None"
        install("tensorrt.acme", POLICY.format(policies=f"{{'all': {first}}}"))
        second = "lambda point: 'Rival says no' if point.index == 0 else None"
        rival = POLICY.format(policies=f"{{'all': {second}}}").replace("@hookimpl", "@hookimpl(trylast=True)")
        install("tensorrt.rival", rival, distribution="rival", version="3")
        assert list(get_backend("tensorrt").policies) == before
        assert get_backend("tensorrt").conflicts == ()
        x = torch.randn(1, 3, 8, 8)
        result = transform(nn.Sequential(nn.Conv2d(3, 4, 3)), x, backend="tensorrt")
        points = quantization_report(insert_qdq(result.model, result.matches)).points
        assert {point.label: point.rule for point in points} == {
            "input 0": "policy tensorrt's 'all' (from rival 3): Rival says no",
            "weight": "policy tensorrt's 'all' (from acme 1.2): Acme says no",
        }

    @pytest.mark.parametrize("answer", ["''", "'  '"])
    def test_an_empty_string_is_no_reason(self, install, answer):
        install("tensorrt.acme", POLICY.format(policies=f"{{'all': lambda point: {answer}}}"))
        result = transform(nn.Sequential(nn.Conv2d(3, 4, 3)), backend="tensorrt")
        with pytest.raises(
            PluginError, match=rf"\(from acme 1\.2\) returned {answer} at 0 input 0; expected a reason in words"
        ):
            insert_qdq(result.model, result.matches)

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


class TestConflicts:
    """What extensions bring and nobody uses is told, in the list of backends and once in the log."""

    def test_two_extensions_with_a_pattern_of_one_name(self, install, caplog):
        install("tensorrt.b", EXTENSION.format(marker="hookimpl"), distribution="b", version="1")
        install("tensorrt.a", EXTENSION.format(marker="hookimpl"), distribution="a", version="1")
        text = (
            "tensorrt.a (a 1) and tensorrt.b (b 1) both bring fusion 'AcmeConvPattern': that of tensorrt.a (a 1) is "
            "tried first. Uninstall one of them, or mark the one that should win with @hookimpl(tryfirst=True)."
        )
        assert list_backends()["tensorrt"].conflicts == (text,)
        with caplog.at_level(logging.WARNING, logger="embedl_deploy"):
            assert [pattern.origin for pattern in get_backend("tensorrt").fusions[:2]] == ["a 1", "b 1"]
            get_backend("tensorrt")
        assert caplog.messages == [f"Backend 'tensorrt': {text}"]

    def test_two_extensions_that_look_for_the_same_nodes(self, install):
        install("tensorrt.a", EXTENSION.format(marker="hookimpl"), distribution="a", version="1")
        other = EXTENSION.format(marker="hookimpl(tryfirst=True)").replace("AcmeConv", "OtherConv")
        install("tensorrt.b", other, distribution="b", version="1")
        assert list_backends()["tensorrt"].conflicts == (
            "OtherConvPattern of tensorrt.b (b 1) and AcmeConvPattern of tensorrt.a (a 1) look for the same nodes: "
            "OtherConvPattern is tried first. Switch one of them off in the plan, or uninstall one of them.",
        )

    TRANSLATIONS = """
import torch
from embedl_deploy.backend import hookimpl

@{marker}
def embedl_deploy_onnx_translations(opset):
    return {{torch.ops.aten.relu.default: lambda x: {number}}}
"""

    def test_two_translations_of_one_operator(self, install):
        install("tensorrt.a", self.TRANSLATIONS.format(marker="hookimpl", number=1), distribution="a", version="1")
        other = self.TRANSLATIONS.format(marker="hookimpl(tryfirst=True)", number=2)
        install("tensorrt.b", other, distribution="b", version="1")
        backend = get_backend("tensorrt")
        assert backend.conflicts == ()
        assert backend.onnx_translation_conflicts(18) == (
            "tensorrt.b (b 1) and tensorrt.a (a 1) both bring a translation of aten.relu.default to ONNX: that of "
            "tensorrt.b (b 1) is used, and that of tensorrt.a (a 1) is not. Uninstall one of them, or mark the one "
            "that should win with @hookimpl(tryfirst=True).",
        )
        assert [function(None) for function in backend.onnx_translations(18).values()] == [2]

    def test_it_is_told_by_the_command_and_with_the_file(self, install, tmp_path, capsys):
        for name in ("a", "b"):
            text = self.TRANSLATIONS.format(marker="hookimpl", number=name)
            install(f"tensorrt.{name}", text, distribution=name, version="1")
        words = "both bring a translation of aten.relu.default to ONNX: that of tensorrt.a (a 1) is used"
        assert main(["backends", "-v", "-b", "tensorrt"]) == 0
        assert words in capsys.readouterr().out
        model, x = nn.Sequential(nn.Linear(2, 2)).eval(), torch.ones(1, 2)
        exported = export_onnx(transform(model, x, backend="tensorrt"), x, tmp_path / "model.onnx", tolerance=None)
        assert [words in note for note in exported.notes] == [True]

    RULES = """
from embedl_deploy.backend import Rule, Severity
class Short(Rule):
    id, severity, title, remedy = "ACME-1", Severity.WARNING, "Short.", "Shorten it."
    def find(self, model):
        return ()

@hookimpl({order})
def embedl_deploy_check_rules():
    return [Short()]
"""

    @pytest.mark.parametrize(
        ("backend", "extension", "winner", "told"),
        [
            ("", "", "more 3", False),
            ("", "trylast=True", "acme 1.2", True),
            ("tryfirst=True", "", "acme 1.2", True),
            ("tryfirst=True", "tryfirst=True", "more 3", False),
        ],
    )
    def test_a_rule_that_is_not_used(self, install, describe, backend, extension, winner, told):
        install("acme", describe + self.RULES.format(order=backend))
        install("acme.more", self.RULES.format(order=extension), distribution="more", version="3")
        assert get_backend("acme").rule_origins == {"ACME-1": winner}
        text = (
            "acme (acme 1.2) and acme.more (more 3) both bring rule 'ACME-1': that of acme (acme 1.2) is used, and "
            "that of acme.more (more 3) is not. Uninstall one of them, or mark the one that should win with "
            "@hookimpl(tryfirst=True)."
        )
        assert get_backend("acme").conflicts == ((text,) if told else ())

    def test_two_extensions_with_number_formats(self, install):
        code = "@hookimpl\ndef embedl_deploy_quantization_config():\n    return None\n"
        install("sensai.a", code, distribution="a", version="1")
        assert get_backend("sensai").conflicts == ()
        install("sensai.b", code, distribution="b", version="1")
        (conflict,) = get_backend("sensai").conflicts
        assert "both bring number formats from embedl_deploy_quantization_config: sensai.a (a 1) is asked" in conflict


class TestOfNoUsableBackend:
    def test_of_none(self, install):
        install("ghost.acme", "")
        assert list_backends()["ghost.acme"].error == (
            "Extension 'ghost.acme' (from acme 1.2) extends the backend 'ghost', which is not installed. Install "
            "'ghost', or uninstall acme."
        )

    def test_of_a_broken_one(self, install):
        install("ghost", "1 / 0", distribution="ghost")
        install("ghost.acme", "")
        assert list_backends()["ghost.acme"].error == (
            "Extension 'ghost.acme' (from acme 1.2) extends the backend 'ghost', which is broken. See the error of "
            "'ghost', or uninstall acme."
        )
