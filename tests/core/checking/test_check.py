"""Running rules over a file."""

import json
import logging
import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from embedl_deploy import check, export_onnx
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.errors import BackendNotFoundError, InputError
from support.nets import random_input
from support.onnx_files import OnnxFile
from support.quantizable import perceptron


class NoRelu(Rule):
    id = "ACME-1"
    severity = Severity.WARNING
    title = "There is no Relu."
    remedy = "Use Clip."

    def find(self, model):
        for node in model.graph.all_nodes():
            if node.op_type == "Relu":
                yield Violation(node, "a Relu", self.kind(node))
            if node.op_type == "Abs":
                yield Undecided(node, "Abs may be a Relu")

    def kind(self, node):
        return Severity.ERROR if node.name == "Relu_2" else None


class Shapes(Rule):
    id = "ACME-2"
    severity = Severity.INFO
    title = "Shapes are known."
    remedy = "Write them."

    def find(self, model):
        for node in model.graph.all_nodes():
            if node.outputs[0].shape is None or node.outputs[0].dtype is None:
                yield Undecided(node, "no shape")
            else:
                yield Violation(node, f"{node.outputs[0].dtype.name} {list(node.outputs[0].shape)}")


class Broken(NoRelu):
    id = "MORE-1"

    def find(self, model):
        yield Violation(next(iter(model.graph)), "found before the error")
        raise KeyError("scale")


class Strange(NoRelu):
    id = "MORE-2"

    def find(self, model):
        return ["Relu"]


class Elsewhere(NoRelu):
    id = "MORE-3"

    def find(self, model):
        return [Violation(ir.node("Relu", []), "of another graph")]


def relus(file, x, count=3):
    for _ in range(count):
        x = file.node("Relu", x)
    return x


def test_findings_are_sorted_by_severity_and_place(backend):
    backend(NoRelu())
    file = OnnxFile()
    report = check(file.model(file.node("Abs", relus(file, file.input(2)))), "acme")
    assert [(f.severity.value, f.node, f.operator) for f in report.findings] == [
        ("error", "Relu_2", "Relu"),
        ("warning", "Relu_0", "Relu"),
        ("warning", "Relu_1", "Relu"),
    ]
    assert [(u.rule, u.node, u.operator, u.reason) for u in report.undecided] == [
        ("ACME-1", "Abs_3", "Abs", "Abs may be a Relu")
    ]
    assert report.to_dict()["undecided"][0]["cause"] == "not_known"
    assert not report.ok
    assert (report.model, report.backend, report.rules_checked) == ("small", "acme", ("ACME-1",))
    assert (report.findings[0].title, report.findings[0].remedy) == (NoRelu.title, NoRelu.remedy)


def test_warnings_are_no_failure(backend):
    backend(NoRelu())
    file = OnnxFile()
    report = check(file.model(relus(file, file.input(2), 1)))
    assert report.ok
    assert len(report.of(Severity.WARNING)) == 1


def test_a_path_a_proto_and_a_model_are_the_same(backend, tmp_path):
    backend(NoRelu(), Shapes())
    file = OnnxFile()
    model = file.model(relus(file, file.input(2)))
    ir.save(model, tmp_path / "m.onnx")
    of_model = check(model)
    of_file = check(str(tmp_path / "m.onnx"))
    assert of_file.model == str(tmp_path / "m.onnx")
    assert check(tmp_path / "m.onnx").findings == check(onnx.load(tmp_path / "m.onnx")).findings == of_file.findings
    assert of_model.findings == of_file.findings


def test_missing_shapes_are_inferred_in_a_copy(backend):
    backend(Shapes())
    file = OnnxFile()
    inner = file.node("Relu", file.input("batch", 3))
    model = file.model(file.node("Transpose", inner))
    report = check(model)
    # Versions of onnx-ir write a name with quotes or without.
    assert [finding.message.replace("'", "") for finding in report.findings] == [
        "FLOAT [SymbolicDim(batch), 3]",
        "FLOAT [3, SymbolicDim(batch)]",
    ]
    assert inner.shape is None, "the model that was passed is not changed"


def test_shapes_that_cannot_be_inferred_are_said_to_be_missing(backend, caplog):
    backend(Shapes())
    file = OnnxFile()
    y = file.node("Relu", file.node("Strange", file.input(2), domain="com.acme"))
    with caplog.at_level(logging.WARNING):
        report = check(file.model(y))
    assert [place.operator for place in report.undecided] == ["com.acme::Strange", "Relu"]
    assert caplog.records == []


def test_local_functions_are_looked_into(backend):
    backend(NoRelu())
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "local": 1]> net (float[2] x) => (float[2] y) { y = local.twice(x) }
        <domain: "local", opset_import: ["": 18]> twice (a) => (c) { b = Relu(a) c = Relu(b) }"""
    )
    assert [finding.operator for finding in check(proto).findings] == ["Relu", "Relu"]


def test_functions_of_operators_that_the_compiler_has_stay_closed(backend):
    backend(NoRelu(), domains=("acme",))
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "acme": 1, "local": 1]> net (float[2] x) => (float[2] z) {
            y = acme.own(x) z = local.once(y) }
        <domain: "acme", opset_import: ["": 18]> own (a) => (c) { b = Relu(a) c = Relu(b) }
        <domain: "local", opset_import: ["": 18]> once (a) => (b) { b = Relu(a) }"""
    )
    report = check(proto)
    assert [finding.operator for finding in report.findings] == ["Relu"] and report.undecided == ()


def test_subgraphs_are_looked_into(backend):
    backend(NoRelu())
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]> net (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = a () => (float[2] u) { u = Relu(x) },
                    else_branch = b () => (float[2] v) { v = Neg(x) }> }"""
    )
    assert [finding.operator for finding in check(proto).findings] == ["Relu"]


def test_a_broken_rule_is_named_and_the_others_count(backend):
    backend(Broken(), Strange(), Elsewhere(), NoRelu())
    file = OnnxFile()
    report = check(file.model(relus(file, file.input(2), 1)))
    assert [finding.rule for finding in report.findings] == ["ACME-1"]
    assert [(place.rule, place.node) for place in report.undecided] == [
        ("MORE-1", None),
        ("MORE-2", None),
        ("MORE-3", None),
    ]
    assert {place.cause.value for place in report.undecided} == {"rule_failed"}
    reasons = [place.reason for place in report.undecided]
    assert reasons[0] == "the rule failed: KeyError: 'scale'. Report it to the authors of more 3"
    assert "find() gave 'Relu'; expected Violation or Undecided" in reasons[1]
    assert "which is not a node of the file" in reasons[2]
    assert "authors of acme 1.2" in reasons[2], "of a rule without an origin the backend's"
    assert report.rules_checked == ("MORE-1", "MORE-2", "MORE-3", "ACME-1")


@pytest.mark.parametrize(("severity", "ok"), [(Severity.ERROR, False), (Severity.WARNING, True), (Severity.INFO, True)])
def test_a_file_is_not_called_right_by_a_rule_for_errors_that_failed(backend, severity, ok):
    rule = Broken()
    rule.severity = severity
    backend(rule)
    file = OnnxFile()
    report = check(file.model(relus(file, file.input(2), 1)))
    assert report.ok is report.to_dict()["ok"] is ok
    assert report.rules_failed == (() if ok else ("MORE-1",))
    assert ("1 rule failed" in str(report)) is not ok


def test_findings_name_the_module(backend, tmp_path):
    backend(NoRelu(), Shapes())
    x = random_input(2, 12)
    report = check(export_onnx(torch.nn.Sequential(perceptron(), torch.nn.ReLU()), x, tmp_path / "m.onnx").path)
    assert "1" in {finding.module for finding in report.findings if finding.rule == "ACME-1"}
    assert {"0.first", "0.second"} <= {finding.module for finding in report.findings if finding.rule == "ACME-2"}


def test_the_report_says_that_there_are_no_rules(backend):
    backend()
    file = OnnxFile()
    report = check(file.model(relus(file, file.input(2), 1)))
    assert report.ok
    assert str(report) == ("small is valid ONNX. Nothing else was checked: backend 'acme' has no rules for ONNX files.")


def test_what_is_no_file(backend, tmp_path):
    backend(NoRelu())
    with pytest.raises(InputError, match="not there; expected an ONNX file"):
        check(tmp_path / "none.onnx")


def test_what_is_no_backend(tmp_path):
    with pytest.raises(BackendNotFoundError, match="No backend 'acme'"):
        check(tmp_path / "none.onnx", "acme")


def test_weights_in_a_second_file_must_be_there_and_are_not_read(backend, tmp_path, monkeypatch):
    backend(NoRelu())
    monkeypatch.setattr(ir.ExternalTensor, "_load", lambda tensor: pytest.fail("it was read"))
    file = OnnxFile()
    y = relus(file, file.node("MatMul", file.input(2, 64), file.constant(np.ones((64, 64)))), 1)
    ir.save(file.model(y), tmp_path / "m.onnx", external_data="weights.data", size_threshold_bytes=0)
    report = check(tmp_path / "m.onnx")
    assert [finding.rule for finding in report.findings] == ["ACME-1"]
    assert report.undecided == ()
    opened = ir.load(tmp_path / "m.onnx")
    (tmp_path / "weights.data").unlink()
    for model in (tmp_path / "m.onnx", opened):
        with pytest.raises(InputError, match=r"'c0' is in 'weights\.data', which does not exist\. Copy it next to"):
            check(model)
    with pytest.raises(InputError, match=r"'weights\.data'; expected the path of the model"):
        check(onnx.load(tmp_path / "m.onnx", load_external_data=False))


def test_the_report_is_plain_values(backend):
    backend(Broken(), NoRelu())
    file = OnnxFile()
    report = check(file.model(relus(file, file.input(2), 1)))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is True
    assert plain["findings"][0] == {
        "rule": "ACME-1",
        "severity": "warning",
        "node": "Relu_0",
        "operator": "Relu",
        "module": None,
        "message": "a Relu",
        "title": "There is no Relu.",
        "remedy": "Use Clip.",
    }
    assert plain["undecided"][0]["rule"] == "MORE-1"


def test_the_table_is_short_and_says_how_to_mend(backend):
    backend(Broken(), NoRelu())
    file = OnnxFile()
    text = str(check(file.model(relus(file, file.input(2), 20))))
    lines = text.splitlines()
    assert lines[0] == "small for acme: 1 error, 19 warnings, 0 notes (2 rules checked, 1 places not judged)"
    assert "Relu_0 (Relu)" in text and "11 more" in text
    assert "There is no Relu." in text and "Use Clip." in text
    assert "(the whole file)" in text and "KeyError" in text
    assert len(lines) < 30
    assert max(map(len, lines)) <= 118


def test_importing_costs_no_onnx():
    code = (
        "import sys; from embedl_deploy import check; from embedl_deploy.backend import get_backend; "
        "get_backend('tensorrt'); get_backend('sensai'); "
        "print([m for m in ('onnx', 'onnx_ir', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
