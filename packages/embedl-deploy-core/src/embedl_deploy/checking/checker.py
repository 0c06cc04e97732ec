"""Runs a backend's rules on a file."""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, Union

from embedl_deploy.artifact import (
    check_order,
    check_sorted,
    check_weight_files,
    inline_functions,
    model_of,
    read_onnx,
    users_module_of,
)
from embedl_deploy.backend import Backend, Rule, Severity, Undecided, Violation, get_backend, rules_in
from embedl_deploy.checking import rules as rules_of_every_backend
from embedl_deploy.checking.report import CheckReport, Finding, NotJudged, WhyNotJudged
from embedl_deploy.checking.rules.valid_onnx import check_operator_set
from embedl_deploy.errors import PLUGIN_FAILURES
from embedl_deploy.logs import quiet
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

#: What can be checked.
Checkable: TypeAlias = Union[str, os.PathLike[str], "ir.Model", "onnx.ModelProto"]

#: The rules that are asked for every backend, before its own.
RULES_OF_EVERY_BACKEND: tuple[Rule, ...] = rules_in(rules_of_every_backend)
_ORDER = {severity: place for place, severity in enumerate(Severity)}


@checked
def check(model: Checkable, backend: str | None = None) -> CheckReport:
    """Check with a backend's rules whether its compiler will accept an ONNX file and compile it as intended.

    Two rules of every backend come before its own: whether the file is ONNX at all, ``ONNX-1`` and ``ONNX-2``.

    Nothing is compiled and nothing is changed. Shapes that the file leaves out are inferred where they can be. Weights
    in a second file must be there, in the folder of the first, and stay there until a rule looks at them.

    Args:
        model: Path of an ONNX file, or a model in memory.
        backend: Name of the backend; by default the one that is chosen.

    Raises:
        BackendNotFoundError: No such backend is installed, or none was chosen and the choice is not obvious.
        InputError: The file does not exist or is not an ONNX model, a weight is missing or has the wrong size, or
            the graph cannot be computed: nodes wait for each other, stand in another order than that in which they
            can be computed, or read a value that nothing gives; or the installed ``onnx`` does not know the operator
            set.
    """
    chosen = get_backend(backend)
    return run_rules(chosen, chosen.check_rules, model)


def run_rules(backend: Backend, rules: Sequence[Rule], model: Checkable) -> CheckReport:
    """Ask the rules of every backend, and some of a backend's own; the arguments and errors of :func:`check`."""
    opened, name = _opened(model)
    graph = _completed(opened, backend.info.domains)
    places = {id(node): place for place, node in enumerate(graph.graph.all_nodes())}
    found: list[tuple[int, int, Finding]] = []
    undecided: list[NotJudged] = []
    failed: list[str] = []
    for rule in (*RULES_OF_EVERY_BACKEND, *rules):
        try:
            results = [(result, _place(result, places)) for result in rule.find(graph)]
        except PLUGIN_FAILURES as error:  # a plugin's rule may raise anything; the other rules still count
            origin = backend.rule_origins.get(rule.id, backend.origin)
            origin = "embedl-deploy-core" if rule in RULES_OF_EVERY_BACKEND else origin
            reason = f"the rule failed: {type(error).__name__}: {error}. Report it to the authors of {origin}"
            undecided.append(NotJudged(rule.id, None, None, None, reason, WhyNotJudged.RULE_FAILED))
            failed += [rule.id] if rule.severity is Severity.ERROR else []
            continue
        for result, place in results:
            if isinstance(result, Violation):
                finding = _finding(rule, result)
                found.append((_ORDER[finding.severity], place, finding))
            else:
                undecided.append(_not_judged(rule, result))
    found.sort(key=lambda entry: entry[:2])
    findings = tuple(finding for _, _, finding in found)
    return CheckReport(name, backend.name, findings, tuple(undecided), tuple(rule.id for rule in rules), tuple(failed))


def _place(result: object, places: Mapping[int, int]) -> int:
    if not isinstance(result, (Violation, Undecided)):
        raise TypeError(f"find() gave {result!r}; expected Violation or Undecided")
    if result.node is None and isinstance(result, Undecided):
        return -1
    if id(result.node) not in places:
        raise TypeError(f"find() gave a {type(result).__name__} at {result.node!r}, which is not a node of the file")
    return places[id(result.node)]


def _opened(model: Checkable) -> tuple["ir.Model", str]:
    """The model, and what to call it."""
    if isinstance(model, (str, os.PathLike)):
        name = os.fspath(model)
        what = repr(name)
        model = read_onnx(model)
    else:
        import onnx

        if isinstance(model, onnx.ModelProto):
            model = model_of(model, None)
        name, what = model.graph.name or "(unnamed graph)", "The model in memory"
        check_weight_files(model)
        check_order(model, what)
    check_sorted(model, what)
    check_operator_set(model, what)
    return model, name


def _completed(model: "ir.Model", kept: Collection[str]) -> "ir.Model":
    """The model with local functions inlined, but for those of some domains, and missing shapes inferred.

    It is a copy if anything is to be done.
    """
    from onnx_ir.passes.common import ShapeInferencePass

    outputs = [value for node in model.graph.all_nodes() for value in node.outputs if value.name]
    complete = all(value.shape is not None and value.dtype is not None for value in outputs)
    if complete and not model.functions:
        return model
    model = model.clone()  # shares the weights
    inline_functions(model, kept)
    # A file that cannot be inferred is checked as it is; rules say what they miss.
    with quiet("onnx_ir.passes.common.shape_inference", below=logging.ERROR):
        # Not strict: an operator of another domain leaves its own outputs unknown, and only those.
        return ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model).model


def _finding(rule: Rule, violation: Violation) -> Finding:
    node, operator = _label(violation.node)
    return Finding(
        rule.id,
        violation.severity or rule.severity,
        node,
        operator,
        users_module_of(violation.node),
        violation.message,
        rule.title,
        rule.remedy,
    )


def _not_judged(rule: Rule, place: Undecided) -> NotJudged:
    if place.node is None:
        return NotJudged(rule.id, None, None, None, place.reason)
    return NotJudged(rule.id, *_label(place.node), users_module_of(place.node), place.reason)


def _label(node: "ir.Node") -> tuple[str, str]:
    name = node.name or next((value.name for value in node.outputs if value.name), "") or "(unnamed)"
    return name, f"{node.domain}::{node.op_type}" if node.domain else node.op_type
