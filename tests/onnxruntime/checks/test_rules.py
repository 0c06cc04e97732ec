"""A planted violation or more for each rule, and near misses."""

from pathlib import Path

import pytest
import torch
from torch import nn

from embedl_deploy import check, export_onnx, transform
from embedl_deploy.quantize import quantize
from embedl_deploy_onnxruntime import S8S8, U8S8
from embedl_deploy_onnxruntime.checks import ONNXRUNTIME_RULES
from support.onnxruntime_cases import NEAR_MISSES, PLANTED
from support.onnxruntime_optimized import optimized


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


@pytest.mark.parametrize("opset", [18, 21, 23])
@pytest.mark.parametrize("config", [U8S8, S8S8], ids=["U8S8", "S8S8"])
def test_defaults_that_later_operator_sets_write_out_say_nothing(tmp_path, config, opset):
    """QuantizeLinear has output_dtype=0 and block_size=0 then, which a session takes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    x = torch.randn(1, 3, 8, 8)
    model = quantize(transform(net, x, backend="onnxruntime"), [x], config, progress=False)
    export_onnx(model, x, tmp_path / "m.onnx", opset=opset)
    rules = {finding.rule for finding in check(tmp_path / "m.onnx", "onnxruntime").findings}
    assert rules == ({"ORT-12"} if config is U8S8 else {"ORT-11", "ORT-12"})
    assert check(tmp_path / "m.onnx", "onnxruntime").ok
    kernels, found = optimized(tmp_path / "m.onnx", x)
    assert (kernels["QLinearConv"], kernels["QGemm"]) == (2, 1)
    torch.testing.assert_close(found, model(x).detach(), rtol=0, atol=0.05)
