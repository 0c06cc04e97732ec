"""A planted violation or more for each rule, and near misses."""

from pathlib import Path

import pytest

from embedl_deploy import check
from embedl_deploy.tensorrt.checks import TENSORRT_RULES
from support.onnx_files import INT8, OnnxFile
from support.tensorrt_cases import NEAR_MISSES, PLANTED
from support.tensorrt_files import INT64, PER_CHANNEL


def test_the_document_has_every_rule():
    text = (Path(__file__).parents[3] / "docs" / "checking.md").read_text(encoding="utf-8")
    rows = [tuple(line.strip("| ").split(" | ")) for line in text.splitlines() if line.startswith("| TRT-")]
    assert rows == [(rule.id, rule.severity.value, rule.title) for rule in TENSORRT_RULES]


def test_every_rule_has_both():
    ids = [rule.id for rule in TENSORRT_RULES]
    assert list(dict.fromkeys(case.rule for case in PLANTED)) == ids
    assert {case.rule for case in NEAR_MISSES} == set(ids)
    assert all(case.severity == "error" for case in PLANTED if case.refused)


@pytest.mark.parametrize("case", PLANTED, ids=str)
def test_planted_violation_is_found(case):
    report = check(case.model(), "tensorrt")
    found = [finding for finding in report.findings if finding.rule == case.rule]
    assert [(finding.severity.value, finding.operator) for finding in found[:1]] == [(case.severity, case.operator)]
    assert case.message in found[0].message
    assert report.ok is (case.severity != "error")


@pytest.mark.parametrize("case", NEAR_MISSES, ids=str)
def test_near_miss_is_not_found(case):
    report = check(case.model(), "tensorrt")
    assert [finding.message for finding in report.findings if finding.rule == case.rule] == []
    assert [place.reason for place in report.undecided if place.rule == case.rule] == []


def doubled(f, x):
    return f.node("Mul", x, f.constant(2.0))


@pytest.mark.parametrize(
    ("rule", "operator", "reason", "build"),
    [
        (
            "TRT-Q02",
            "QuantizeLinear",
            "the scale 'Mul_0_0' is computed in the graph, from constants",
            lambda f: f.pair(f.input(2, 8), doubled(f, f.constant(0.05)), f.constant(0, INT8)),
        ),
        (
            "TRT-Q03",
            "QuantizeLinear",
            "dimension 1 is open, and there are 8 scales for it",
            lambda f: f.qdq(f.input(1, "channels", 6, 6), PER_CHANNEL, axis=1),
        ),
        (
            "TRT-Q12",
            "MatMul",
            "the weight is reshaped on its way; where its axis of scales goes is not known",
            lambda f: f.node(
                "MatMul", f.qdq(f.input(2, 64)), f.node("Reshape", f.qdq_weight(8, 64), f.constant([64, 8], INT64))
            ),
        ),
        (
            "TRT-O01",
            "com.acme::Sparse",
            "whether there is a plugin for com.acme::Sparse is not in the file",
            lambda f: f.node("Sparse", f.input(2, 8), domain="com.acme"),
        ),
    ],
    ids=["computed scale", "open dimension", "reshaped weight", "plugin"],
)
def test_what_cannot_be_judged_is_said(rule, operator, reason, build):
    file = OnnxFile()
    report = check(file.model(build(file)), "tensorrt")
    assert (rule, operator, reason) in [(place.rule, place.operator, place.reason) for place in report.undecided]
