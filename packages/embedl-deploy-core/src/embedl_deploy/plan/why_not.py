"""Answers to "why was this not fused?" for any node."""

from collections.abc import Collection, Sequence

from torch import fx

from embedl_deploy.errors import PLUGIN_FAILURES, PlanError
from embedl_deploy.graph.module_paths import near_names, nodes_named, paths_called
from embedl_deploy.patterns import MatchStatus, PatternMatch, sources_of
from embedl_deploy.patterns.causes import Why
from embedl_deploy.patterns.diagnosis import explain_mismatch
from embedl_deploy.plan.causes import Answer, Verdict
from embedl_deploy.plan.state import PlanState


def answers(plan: PlanState, node_name: str, pattern_name: str | None = None) -> list[Answer]:
    """One answer per pattern that could concern the node: taken by it, skipped, declined, or where the tree stops.

    For a container, what is taken, skipped and declined inside it, and where trees stop at nodes that nothing takes.
    """
    if pattern_name is not None and pattern_name not in {pattern.name for pattern in plan.patterns}:
        known = ", ".join(pattern.name for pattern in plan.patterns)
        raise PlanError(f"The plan has no pattern {pattern_name!r}. Its patterns: {known}.")
    nodes = _nodes_named(plan, node_name)
    names = {node_name, *(node.name for node in nodes)}
    found: list[Answer] = []
    answered: set[str] = set()
    taken: set[str] = set()
    for match in plan:
        if names & set(match.node_names) or not match.node_names:
            answered.add(match.pattern_name)
            taken.update(match.node_names if match.apply else ())
            why = Why.SWITCHED_OFF if match.why is None and not match.apply else match.why  # its flag was set by hand
            found.append(Answer(node_name, _verdict(match), match.pattern_name, match.node_names, match.reason, why))
    for refusal in plan.declined:
        if names & set(refusal.node_names):
            answered.add(refusal.pattern_name)
            found.append(Answer(node_name, Verdict.DECLINED, refusal.pattern_name, reason=refusal.reason))
    if all(node.name == node_name or node.target == node_name for node in nodes):
        found += _mismatches(plan, node_name, nodes, answered)
    else:
        for node in nodes:
            if node.name not in taken:
                found += _mismatches(plan, node.name, [node], set()) or [_unknown(node.name)]
    if pattern_name is not None:
        found = [answer for answer in found if answer.pattern == pattern_name]
    return found or [_unknown(node_name)]


def _verdict(match: PatternMatch) -> Verdict:
    if match.apply:
        return Verdict.APPLIES
    return Verdict.FAILED if match.status is MatchStatus.FAILED else Verdict.SKIPPED


def _mismatches(plan: PlanState, node_name: str, nodes: Sequence[fx.Node], answered: Collection[str]) -> list[Answer]:
    """Where the trees of the patterns stop that have not been answered for yet."""
    found: list[Answer] = []
    for pattern in plan.patterns:
        if pattern.name in answered or pattern.tree is None:
            continue
        try:
            reasons = [reason for node in nodes if (reason := explain_mismatch(pattern, node)) is not None]
        except PLUGIN_FAILURES as error:  # a predicate of a plugin may raise anything
            reasons = [f"a predicate of it raised {type(error).__name__}: {error}"]
        found += [Answer(node_name, Verdict.DOES_NOT_MATCH, pattern.name, reason=reason) for reason in reasons[:1]]
    return found


def _unknown(node_name: str) -> Answer:
    return Answer(node_name, Verdict.NO_PATTERN)


def matches_touching(plan: PlanState, name: str, pattern_name: str | None = None) -> list[PatternMatch]:
    """The matches, of one pattern or all, that take a node, or something in the module at a path."""
    names = {name}
    for graph in (plan.converted.graph, plan.model.graph):
        names.update(node.name for node in nodes_named(graph, name))
    named = [match for match in plan if pattern_name in (None, match.pattern_name)]
    return [match for match in named if names & set(match.node_names)]


def no_match_at(plan: PlanState, node_name: str, pattern_name: str) -> str:
    """That a plan has no such match, and what it has there."""
    there = plan.matches.get(node_name)
    touching = matches_touching(plan, node_name)
    same = [match for match in touching if match.pattern_name == pattern_name]
    if there:
        have = f"at {node_name!r} there are {list(there)}."
    elif touching:
        listed = "; ".join(f"{each.pattern_name} takes it and ends at {each.node_name!r}" for each in same or touching)
        have = f"no match ends at {node_name!r}; {listed}."
    else:
        known = {*plan.matches, *paths_called(plan.model.graph)}
        have = f"no match ends at {node_name!r}. {near_names(node_name, known, first='Names begin with')}"
    return f"The plan has no match of {pattern_name!r} at {node_name!r}: {have}"


def _nodes_named(plan: PlanState, name: str) -> list[fx.Node]:
    """Nodes of that name or module path in the converted graph, or those that the captured nodes became."""
    nodes = nodes_named(plan.converted.graph, name)
    if nodes:
        return nodes
    nodes = nodes_named(plan.model.graph, name)
    if nodes:
        sources = {node.name for node in nodes}
        return [n for n in plan.converted.graph.nodes if sources & set(sources_of(n))] or nodes
    calls = {node.name for node in plan.model.graph.nodes if node.op.startswith("call_") and node.users}
    known = {*calls, *paths_called(plan.model.graph)}
    raise PlanError(
        f"The model has no node or module {name!r}. {near_names(name, known, first='Names begin with')} All names are "
        "in plan.model.graph."
    )
