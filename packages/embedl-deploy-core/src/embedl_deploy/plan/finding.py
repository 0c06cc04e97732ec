"""Finds matches, and decides between those that use the same nodes."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from embedl_deploy.errors import PLUGIN_FAILURES, PatternError
from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.memo import graph_unchanged, remembered
from embedl_deploy.patterns import Declined, MatchStatus, Pattern, PatternMatch, TreeMatch
from embedl_deploy.patterns.causes import SWITCHED_OFF, Cause, Why
from embedl_deploy.patterns.matcher import CheckResultError
from embedl_deploy.plan.failures import fail

#: Asks a plan whether a match is to be applied; ``None`` means that the plan does not know it.
Decide = Callable[[PatternMatch], bool | None]


@dataclass
class Found:
    """What the patterns found in one graph."""

    matches: list[PatternMatch] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)


def find_matches(
    graph_module: fx.GraphModule, patterns: Sequence[Pattern], *, strict: bool, told: Collection[Any] = ()
) -> Found:
    """Run every pattern over the graph, in order of priority.

    Matches that in-place operations forbid are declined. Where ``check`` raises there is a match that failed; where
    ``match`` or a predicate raises there is one without nodes for the whole graph. If ``strict``, either raises
    ``PatternError``. Failures whose keys are in ``told`` are not logged again.
    """
    with graph_unchanged():
        return _find_matches(graph_module, patterns, strict, told)


def _find_matches(
    graph_module: fx.GraphModule, patterns: Sequence[Pattern], strict: bool, told: Collection[Any]
) -> Found:
    found = Found()
    effects = remembered(Effects, graph_module.graph)
    for pattern in patterns:
        try:
            matches = pattern.match(graph_module)
            if not isinstance(matches, list) or not all(isinstance(match, PatternMatch) for match in matches):
                raise PatternError(f"match() returned {matches!r}; expected a list of PatternMatch")
        except PLUGIN_FAILURES as error:  # a pattern of a plugin may raise anything
            reason = f"its match() failed: {type(error).__name__}: {error}"
            everywhere = PatternMatch(pattern, TreeMatch(()))
            found.matches.append(
                fail(
                    *(everywhere, "match", error, reason),
                    consequence="It is left out; the others go on.",
                    strict=strict,
                    told=everywhere.key in told,
                )
            )
            continue
        found.declined.extend(getattr(matches, "declined", ()))
        for match, raised in getattr(matches, "failed", ()):
            found.matches.append(_check_failed(match, raised, strict=strict, told=match.key in told))
        refused: set[fx.Node] = set()
        for match in matches:
            hazard = effects.hazard(match.nodes)
            if hazard is None:
                found.matches.append(match)
            else:
                refused.update(match.nodes)
                found.declined.append(Declined(pattern.name, match.node_names, hazard))
        # Where a longer match cannot be, a shorter one inside it may.
        inner = [match for match in getattr(matches, "contained", ()) if refused.intersection(match.nodes)]
        found.matches.extend(match for match in inner if effects.hazard(match.nodes) is None)
    _number_twins(found.matches)
    return found


def _check_failed(match: PatternMatch, error: BaseException, *, strict: bool, told: bool) -> PatternMatch:
    """The match, as one whose ``check`` failed."""
    reason = str(error) if isinstance(error, CheckResultError) else f"check() raised {type(error).__name__}: {error}"
    consequence = "The place is left to other patterns."
    return fail(match, "check", error, reason, consequence=consequence, strict=strict, told=told)


def _number_twins(matches: Sequence[PatternMatch]) -> None:
    """Tell matches of the same nodes by patterns of the same name apart: two plugins may each bring one."""
    counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for match in matches:
        named = match.pattern_name, match.node_names
        match.twin = counts[named]
        counts[named] += 1


def resolve_overlaps(matches: Sequence[PatternMatch], decide: Decide) -> None:
    """Give every node to at most one match: the first, in order, that wants it and is not switched off.

    Sets ``apply`` and ``reason``. What flows into and out of a match needs no deciding: a rewrite reads its inputs
    from the graph at the moment it is made, so they may well be the result of another.
    """
    holder: dict[fx.Node, PatternMatch] = {}
    for match in matches:
        if match.status is MatchStatus.FAILED:  # its check() did
            match.apply = False
            continue
        decision = decide(match)
        rival = next((holder[node] for node in match.nodes if node in holder), None)
        match.apply = decision is not False and rival is None
        if rival is not None:
            same_name = bool(match.twin) and rival.pattern_name == match.pattern_name
            detail = f": an earlier pattern of that name (from {type(rival.pattern).__module__}) took it"
            match.cause = Cause(Why.OVERLAPS, rival.pattern_name, rival.node_name, detail if same_name else "")
        elif decision is False:
            if match.why is not Why.OVERLAPS:  # keep why it was not planned in the first place
                match.cause = SWITCHED_OFF
        else:
            match.cause = None
            holder.update(dict.fromkeys(match.nodes, match))
        if not match.apply:
            match.status = MatchStatus.SKIPPED


def move_up(matches: Sequence[PatternMatch], failed: Sequence[PatternMatch]) -> list[PatternMatch]:
    """The next in line for the nodes of matches that failed: those that were skipped only for their sake.

    Args:
        matches: All matches of the graph, in order of priority, with what became of each.
        failed: Those of them that failed just now.

    Returns:
        The matches that are to be applied now, in order.
    """
    taken = {name for match in matches if match.status is MatchStatus.APPLIED for name in match.node_names}
    freed = {name: match for match in failed for name in match.node_names}
    promoted = []
    for match in matches:
        if match.status is not MatchStatus.SKIPPED or match.why is not Why.OVERLAPS:
            continue
        rival = next((freed[name] for name in match.node_names if name in freed), None)
        if rival is not None and taken.isdisjoint(match.node_names):
            match.status, match.apply = MatchStatus.PLANNED, True
            match.cause = Cause(Why.MOVED_UP, rival.pattern_name, rival.node_name)
            taken.update(match.node_names)
            promoted.append(match)
    return promoted
