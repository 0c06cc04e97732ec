"""Other plans for the same model: matches of one pattern at places of equal structure, switched off together."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.patterns import MatchStatus, PatternMatch
from embedl_deploy.patterns.causes import Why
from embedl_deploy.pipeline import apply_transformation_plan
from embedl_deploy.plan.making import make_plan
from embedl_deploy.plan.result import TransformationResult

#: What tells a match from others, whichever run of the plan it is of.
Key = tuple[str, str, tuple[str, ...], int]


@dataclass(frozen=True)
class MatchGroup:
    """Matches that are switched together.

    Attributes:
        name: The pattern, and where it fits, with the numbers of paths left out.
        keys: The matches.
        paths: The modules or nodes where they are.
    """

    name: str
    keys: frozenset[Key]
    paths: tuple[str, ...]


def groups_of(result: TransformationResult) -> list[MatchGroup]:
    """The groups of the matches that were applied."""
    found: dict[str, list[tuple[Key, str]]] = {}
    for row in result.matches.values():
        for match in row.values():
            if match.status is MatchStatus.APPLIED:
                path = _path(match)
                name = f"{match.pattern_name} at {re.sub('[0-9]+', '*', path)}"
                found.setdefault(name, []).append((match.key, path))
    return [
        MatchGroup(name, frozenset(key for key, _ in rows), tuple(path for _, path in rows))
        for name, rows in found.items()
    ]


def _path(match: PatternMatch) -> str:
    module = next((str(node.target) for node in match.nodes if node.op == "call_module"), None)
    return match.node_name if module is None else module


def without(result: TransformationResult, keys: Collection[Key]) -> TransformationResult:
    """The model that the same plan makes without some of its matches; other matches may take their nodes.

    Args:
        result: What the plan made. Not modified.
        keys: The matches that are switched off, beside those that are off already.
    """
    plan = result.report.plan
    off = {match.key for match in plan if match.why is Why.SWITCHED_OFF} | set(keys)
    fresh = make_plan(
        deep_copy(plan.captured.build()),
        plan.patterns,
        backend=plan.backend,
        capture_method=plan.capture_method,
        notes=plan.notes,
        original=plan.original,
        strict=False,
    )
    for node, row in fresh.matches.items():
        for name, match in row.items():
            if match.key in off and match.apply:
                fresh.disable(node, name)
    return apply_transformation_plan(fresh)
