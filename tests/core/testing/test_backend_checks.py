"""Each check of a backend, and of a network, fails where it should."""

import pytest
import torch
from torch import nn

from core.testing.small_backend import (
    Again,
    Block,
    BlockPattern,
    WrongInEvaluation,
    block,
    make_backend,
    with_graft,
)
from embedl_deploy.backend import BackendInfo, PointKind, Rule, Severity, Violation
from embedl_deploy.patterns import Example
from embedl_deploy.testing import BACKEND_CHECKS, NETWORK_CHECKS, ConformanceFailure, DoesNotApply
from embedl_deploy.testing.failures import UnexpectedError
from embedl_deploy.testing.item import advice
from embedl_deploy.testing.networks import NETWORKS
from embedl_deploy.testing.subjects import BackendSubject, NetworkSubject

BACKEND = {check.id: check for check in BACKEND_CHECKS}
NETWORK = {check.id: check for check in NETWORK_CHECKS}


def complaint(check, subject):
    """What a check that must fail says."""
    with pytest.raises((ConformanceFailure, UnexpectedError)) as failure:
        check.run(subject)
    return advice(check, subject, failure.value)


def with_translations(function):
    backend = make_backend()
    found = {torch.ops.aten.hardtanh.default: lambda x, low, high: function(x, low)}
    if function.__code__.co_argcount == 1:
        found = {torch.ops.aten.hardtanh.default: function}
    object.__setattr__(backend, "onnx_translations", lambda opset: found)
    return backend


def silent(point):
    return None


def answers_true(point):
    return True


def fails_at_outputs(point):
    if point.kind is PointKind.OUTPUT:
        raise KeyError(point.label)


@pytest.mark.parametrize(
    ("check", "good", "spoilt", "found"),
    [
        (
            "describes-itself",
            lambda: make_backend(),
            lambda: make_backend(info=BackendInfo("Acme NPU")),
            "the description of its BackendInfo is empty",
        ),
        (
            "unique-names",
            lambda: make_backend(BlockPattern(), Again()),
            lambda: make_backend(BlockPattern(), BlockPattern()),
            "several patterns are called 'BlockPattern'",
        ),
        (
            "policies",
            lambda: make_backend(BlockPattern(), policies={"all": silent}),
            lambda: make_backend(BlockPattern(), policies={"all": silent, "some": answers_true}),
            "the answer True",
        ),
        (
            "onnx-translations",
            lambda: with_translations(lambda x, most: None),
            lambda: with_translations(lambda x: None),
            "the translation of aten.hardtanh.default takes (x)",
        ),
        (
            "policies",
            lambda: make_backend(BlockPattern(), policies={"all": silent}),
            lambda: make_backend(BlockPattern(), policies={"all": fails_at_outputs}),
            "of kind OUTPUT in int8, in the plain convolutional network\n  found:    KeyError: 'input 0', raised at ",
        ),
    ],
    ids=["describes-itself", "unique-names", "policies, no reason", "onnx-translations", "policies, an exception"],
)
def test_a_check_of_a_backend(check, good, spoilt, found):
    BACKEND[check].run(BackendSubject(good()))
    text = complaint(BACKEND[check], BackendSubject(spoilt()))
    assert text.startswith(f"Backend 'acme' fails a check: the backend {BACKEND[check].title}.")
    assert found in text
    assert f"  do:       {BACKEND[check].advice}" in text


def test_an_exception_is_told_with_the_authors_line():
    subject = BackendSubject(make_backend(BlockPattern(), policies={"all": fails_at_outputs}))
    assert "test_backend_checks.py:" in complaint(BACKEND["policies"], subject)
    assert ", in fails_at_outputs" in complaint(BACKEND["policies"], subject)


def test_imports(tmp_path, monkeypatch):
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[embedl_deploy.backends]\nacme = acme_plugin\n")
    (tmp_path / "acme_plugin.py").write_text("import onnxruntime")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = complaint(BACKEND["imports"], BackendSubject(make_backend()))
    assert "importing acme_plugin imports onnxruntime" in found


def test_what_is_an_extra_of_the_distribution_is_optional(tmp_path, monkeypatch):
    from embedl_deploy.backend.loader.discovery import installed_plugins
    from embedl_deploy.testing.imports import _optional

    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    requirements = 'Requires-Dist: torch\nRequires-Dist: torchvision; extra == "pictures"\n'
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n{requirements}")
    (info / "entry_points.txt").write_text("[embedl_deploy.backends]\nacme = acme_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (source,) = (source for source in installed_plugins() if source.name == "acme")
    assert _optional(source) == {"torchvision"}


class FiveTimes(Block):
    """Right in float, and not when its weight is quantized."""

    def forward(self, x):
        return super().forward(x) * (5.0 if self.weight_fake_quant.enabled else 1.0)


class OtherwiseExported(Block):
    def forward(self, x):
        return super().forward(x) + (1.0 if torch.compiler.is_exporting() else 0.0)


class NoConvolutions(Rule):
    id, severity = "ACME-1", Severity.ERROR
    title, remedy = "There are no convolutions.", "Use none."

    def find(self, model):
        return [Violation(node, "a convolution") for node in model.graph if node.op_type == "Conv"]


class Broken(NoConvolutions):
    def find(self, model):
        raise KeyError("lost")


def one_block():
    torch.manual_seed(0)
    return Example(nn.Sequential(*block(nn.ReLU()), nn.Flatten(), nn.Linear(144, 4)).eval(), (torch.randn(2, 4, 6, 6),))


@pytest.mark.parametrize(
    ("check", "spoilt", "found"),
    [
        ("network-numbers", lambda: make_backend(with_graft(WrongInEvaluation)()), "outputs, tensor 0: max |Δ| ="),
        ("network-settles", lambda: make_backend(Again()), "after 1 rewrites, 1 more: Again at _4"),
        ("network-quantized", lambda: make_backend(with_graft(FiveTimes)()), "signal to quantization noise is "),
        ("network-onnx", lambda: make_backend(with_graft(OtherwiseExported)()), "does not compute what the model"),
        (
            "network-rules",
            lambda: make_backend(BlockPattern(), check_rules=(NoConvolutions(),)),
            "the quantized file\n  found:    ACME-1 at 0",
        ),
        (
            "network-rules",
            lambda: make_backend(check_rules=(Broken(),)),
            "ACME-1: the rule failed: KeyError: 'lost'",
        ),
    ],
    ids=["numbers", "settles", "quantized", "onnx", "rules, an error", "rules, an exception"],
)
def test_a_check_of_a_network(check, spoilt, found):
    text = complaint(NETWORK[check], NetworkSubject(spoilt(), "one block", one_block))
    assert text.startswith(f"Backend 'acme' fails a check: one block {NETWORK[check].title}.")
    assert found in text
    assert f"  do:       {NETWORK[check].advice}" in text


def test_rules_may_find_errors_in_what_no_fusion_has_taken():
    NETWORK["network-rules"].run(NetworkSubject(make_backend(check_rules=(NoConvolutions(),)), "one block", one_block))


def test_a_good_backend_passes_every_check_of_a_network():
    subject = NetworkSubject(make_backend(BlockPattern()), "one block", one_block)
    skipped = {}
    for check in NETWORK_CHECKS:
        try:
            check.run(subject)
        except DoesNotApply as reason:
            skipped[check.id] = str(reason)
    assert skipped == {"network-rules": "the backend has no rules for ONNX files"}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_same_each_time_and_leave_the_random_state_alone(name):
    before = torch.get_rng_state()
    once, again = NETWORKS[name](), NETWORKS[name]()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        outputs = once.model(*once.args), again.model(*again.args)
    assert torch.equal(*outputs)
    assert outputs[0].std() > 0
