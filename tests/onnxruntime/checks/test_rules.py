"""A planted violation or more for each rule, and near misses."""

from pathlib import Path

import pytest

from embedl_deploy import check
from embedl_deploy_onnxruntime.checks import ONNXRUNTIME_RULES
from support.onnxruntime_cases import NEAR_MISSES, PLANTED


def test_the_document_has_every_rule():
    text = (Path(__file__).parents[3] / "docs" / "checking.md").read_text(encoding="utf-8")
    rows = [tuple(line.strip("| ").split(" | ")) for line in text.splitlines() if line.startswith("| ORT-")]
    assert rows == [(rule.id, rule.severity.value, rule.title) for rule in ONNXRUNTIME_RULES]


def test_every_rule_has_both():
    ids = [rule.id for rule in ONNXRUNTIME_RULES]
    assert list(dict.fromkeys(case.rule for case in PLANTED)) == ids
    assert {case.rule for case in NEAR_MISSES} == set(ids)
    assert all(case.severity == "error" for case in PLANTED if case.outcome != "runs")


@pytest.mark.parametrize("case", PLANTED, ids=str)
def test_planted_violation_is_found(case):
    report = check(case.model(), "onnxruntime")
    found = [finding for finding in report.findings if finding.rule == case.rule]
    assert [(finding.severity.value, finding.operator) for finding in found[:1]] == [(case.severity, case.operator)]
    assert case.message in found[0].message
    assert report.ok is (case.severity != "error")


@pytest.mark.parametrize("case", NEAR_MISSES, ids=str)
def test_near_miss_is_not_found(case):
    report = check(case.model(), "onnxruntime")
    assert [finding.message for finding in report.findings if finding.rule == case.rule] == []
    assert [place.reason for place in report.undecided if place.rule == case.rule] == []
