"""Answers to "why was this not fused?" for any node."""

from typing import TYPE_CHECKING

from torch import fx

from embedl_deploy.errors import PLUGIN_FAILURES, PlanError
from embedl_deploy.patterns import sources_of
from embedl_deploy.patterns.diagnosis import explain_mismatch

if TYPE_CHECKING:
    from embedl_deploy.plan.plan import TransformationPlan


def why_not(plan: "TransformationPlan", node_name: str, pattern_name: str | None = None) -> list[str]:
    """One line per pattern that could concern the node: taken by it, skipped, declined, or where the tree stops."""
    if pattern_name is not None and pattern_name not in {pattern.name for pattern in plan.patterns}:
        known = ", ".join(pattern.name for pattern in plan.patterns)
        raise PlanError(f"The plan has no pattern {pattern_name!r}. Its patterns: {known}.")
    nodes = _nodes_named(plan, node_name)
    names = {node_name, *(node.name for node in nodes)}
    lines: list[str] = []
    answered: set[str] = set()
    for match in plan:
        if names & set(match.node_names) or not match.node_names:
            answered.add(match.pattern_name)
            state = "applies" if match.apply else match.status.value if match.status.value == "failed" else "skipped"
            where = f" ({' → '.join(match.node_names)})" if match.node_names else ""
            why = f": {match.reason}" if match.reason else ""
            lines.append(_line(node_name, match.pattern_name, f"{state}{where}{why}"))
    for refusal in plan.declined:
        if names & set(refusal.node_names):
            answered.add(refusal.pattern_name)
            lines.append(_line(node_name, refusal.pattern_name, f"declined: {refusal.reason}"))
    for pattern in plan.patterns:
        if pattern.name in answered or pattern.tree is None:
            continue
        try:
            reasons = [reason for node in nodes if (reason := explain_mismatch(pattern, node)) is not None]
        except PLUGIN_FAILURES as error:  # a predicate of a plugin may raise anything
            reasons = [f"a predicate of it raised {type(error).__name__}: {error}"]
        lines.extend(_line(node_name, pattern.name, f"does not match: {reason}") for reason in reasons[:1])
    if pattern_name is not None:
        lines = [line for line in lines if f" {pattern_name} " in line]
    return lines or [f"{node_name}: no pattern has an element for it"]


def _line(node: str, pattern: str, text: str) -> str:
    return f"{node}: {pattern} {text}"


def _nodes_named(plan: "TransformationPlan", name: str) -> list[fx.Node]:
    """Nodes of that name or module path in the converted graph, or those that the captured node became."""
    for graph in (plan.converted.graph, plan.model.graph):
        nodes = [n for n in graph.nodes if n.name == name or (n.op == "call_module" and n.target == name)]
        if nodes and graph is plan.converted.graph:
            return nodes
        if nodes:
            sources = {node.name for node in nodes}
            return [n for n in plan.converted.graph.nodes if sources & set(sources_of(n))] or nodes
    raise PlanError(f"The model has no node or module {name!r}. Names are those in plan.model.graph.")
