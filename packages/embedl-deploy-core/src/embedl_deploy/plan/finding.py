"""Finding matches and deciding between those that want the same nodes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import fx

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.memo import graph_unchanged, remembered
from embedl_deploy.patterns import Declined, MatchStatus, Pattern, PatternMatch

#: Asks a plan whether a match is to be applied; ``None`` means that the plan does not know it.
Decide = Callable[[PatternMatch], bool | None]


@dataclass
class Found:
    """What the patterns found in one graph."""

    matches: list[PatternMatch] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)


def find_matches(graph_module: fx.GraphModule, patterns: Sequence[Pattern], *, strict: bool) -> Found:
    """Run every pattern over the graph, in order of priority.

    Matches that in-place operations forbid are declined. A match whose ``check`` raises is among the matches as one
    that failed; a pattern whose ``match`` raises is declined everywhere. If ``strict``, both raise ``PatternError``.
    """
    with graph_unchanged():
        return _find_matches(graph_module, patterns, strict)


def _find_matches(graph_module: fx.GraphModule, patterns: Sequence[Pattern], strict: bool) -> Found:
    found = Found()
    effects = remembered(Effects, graph_module.graph)
    for pattern in patterns:
        try:
            matches = pattern.match(graph_module)
            if not isinstance(matches, list) or not all(isinstance(match, PatternMatch) for match in matches):
                raise PatternError(f"match() returned {matches!r}; expected a list of PatternMatch")
        except Exception as error:  # a pattern of a plugin may raise anything
            reason = f"its match() failed: {type(error).__name__}: {error}"
            if strict:
                raise PatternError(
                    f"Pattern {pattern.name!r}: {reason.rstrip('.')}. Repair the pattern or leave it out."
                ) from error
            found.declined.append(Declined(pattern.name, ("(everywhere)",), reason))
            continue
        found.declined.extend(getattr(matches, "declined", ()))
        for match, raised in getattr(matches, "failed", ()):
            found.matches.append(_failed(match, raised, strict=strict))
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


def _failed(match: PatternMatch, error: Exception, *, strict: bool) -> PatternMatch:
    """The match, as one whose ``check`` failed."""
    is_ours = isinstance(error, PatternError) and str(error).startswith("check() ")
    match.reason = str(error) if is_ours else f"check() raised {type(error).__name__}: {error}"
    match.status, match.apply = MatchStatus.FAILED, False
    if strict:
        raise PatternError(
            f"Pattern {match.pattern_name!r} failed at {match.node_name!r}: {match.reason.rstrip('.')}. "
            "Repair the pattern or leave it out."
        ) from error
    return match


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
            match.reason = f"overlaps {rival.pattern_name} at {rival.node_name}"
            if match.twin and rival.pattern_name == match.pattern_name:
                match.reason += f": an earlier pattern of that name (from {type(rival.pattern).__module__}) took it"
        elif decision is False:
            if not match.reason.startswith("overlaps"):  # keep why it was not planned in the first place
                match.reason = "switched off in the plan"
        else:
            match.reason = ""
            holder.update(dict.fromkeys(match.nodes, match))
        if not match.apply:
            match.status = MatchStatus.SKIPPED
