"""The hook that gives rules for ONNX files: what a plugin may return, and whose rule counts."""

import pytest

from embedl_deploy.backend import get_backend, list_backends
from embedl_deploy.errors import PluginError

RULE = """
from embedl_deploy.backend import Rule, Severity

class Short(Rule):
    id = "ACME-1"
    severity = Severity.WARNING
    title = "Files are short."
    remedy = "Shorten it."

    def find(self, model):
        return ()
"""


def hook(returned):
    return f"\n@hookimpl\ndef embedl_deploy_check_rules():\n    return {returned}\n"


def test_rules_are_the_backends(install, describe):
    install("acme", RULE + describe + hook("[Short()]"))
    backend = get_backend("acme")
    assert [rule.id for rule in backend.check_rules] == ["ACME-1"]
    assert backend.rule_origins == {"ACME-1": "acme 1.2"}


def test_a_backend_without_the_hook_has_none(install):
    install("acme")
    assert get_backend("acme").check_rules == ()


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("[Short]", "expected objects of subclasses of Rule"),
        ("'Short'", "expected a list or None"),
        ("[Short(), Short()]", "returns two rules with id 'ACME-1' from embedl_deploy_check_rules: Short and Short"),
        ("[type('Nameless', (Short,), {'id': ' '})()]", "returns Nameless from embedl_deploy_check_rules with id ' '"),
        ("[type('Untold', (Short,), {'remedy': None})()]", "with remedy None; expected text"),
        ("[type('Mild', (Short,), {'severity': 'warning'})()]", "returns Mild from embedl_deploy_check_rules without"),
        ("1 / 0", "fails in embedl_deploy_check_rules: ZeroDivisionError"),
    ],
    ids=["a class", "no list", "one id twice", "no id", "no remedy", "severity in words", "raises"],
)
def test_what_is_no_rule(install, describe, returned, reason):
    install("acme", RULE + describe + hook(returned))
    with pytest.raises(PluginError) as caught:
        get_backend("acme")
    assert reason in str(caught.value)
    assert caught.value.distribution == "acme 1.2"
    assert list_backends()["tensorrt"].usable


def test_an_extension_adds_rules_and_replaces_those_of_its_ids(install, describe):
    install("acme", RULE + describe + hook("[Short()]"))
    more = "\nclass Other(Short):\n    id = 'MORE-1'\n\nclass Better(Short):\n    title = 'Files are shorter.'\n"
    install("acme.more", RULE + more + hook("[Better(), Other()]"), distribution="more", version="3")
    backend = get_backend("acme")
    assert [(rule.id, type(rule).__name__) for rule in backend.check_rules] == [
        ("ACME-1", "Better"),
        ("MORE-1", "Other"),
    ]
    assert backend.rule_origins == {"ACME-1": "more 3", "MORE-1": "more 3"}
