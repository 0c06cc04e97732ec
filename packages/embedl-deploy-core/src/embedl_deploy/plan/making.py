"""Makes a plan for a captured graph, and applies it."""

from collections.abc import Sequence

from torch import fx, nn

from embedl_deploy.backend import Backend
from embedl_deploy.errors import PlanError
from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.graph.edit import rebuild
from embedl_deploy.graph.layouts import take_any_layout
from embedl_deploy.graph.metadata import NOT_TAKEN
from embedl_deploy.patterns import Declined, MatchStatus, Pattern, PatternMatch, validate_pattern
from embedl_deploy.patterns.causes import Why
from embedl_deploy.plan.applying import apply_matches
from embedl_deploy.plan.causes import NotTaken, WhyUnfused
from embedl_deploy.plan.finding import resolve_overlaps
from embedl_deploy.plan.plan import TransformationPlan
from embedl_deploy.plan.preparing import Prepared, prepare
from embedl_deploy.plan.state import MatchTable


def tabulate(matches: Sequence[PatternMatch]) -> MatchTable:
    """Arrange matches by node and pattern name; a pattern's further matches at one node get ``#2`` and so on."""
    table: MatchTable = {}
    for match in matches:
        row = table.setdefault(match.node_name, {})
        name, count = match.pattern_name, 1
        while name in row:
            count += 1
            name = f"{match.pattern_name}#{count}"
        row[name] = match
    return table


def make_plan(
    captured: fx.GraphModule,
    patterns: Sequence[Pattern],
    *,
    backend: Backend | None,
    capture_method: str,
    notes: tuple[str, ...],
    original: nn.Module,
    strict: bool,
) -> TransformationPlan:
    """Plan the transformation of a captured model, which is used up by it.

    Raises:
        PatternError: A pattern is declared wrongly, or fails and ``strict`` is set.
    """
    for pattern in patterns:
        validate_pattern(pattern)
    checkpoint = Checkpoint(captured)
    prepared = prepare(captured, patterns, lambda match: None, strict=strict, checkpoint=checkpoint)
    return TransformationPlan(
        captured=checkpoint,
        matches=tabulate(prepared.matches),
        declined=prepared.declined,
        patterns=tuple(patterns),
        backend=backend,
        capture_method=capture_method,
        notes=notes,
        original=original,
        _prepared=prepared,
    )


def carry_out(plan: TransformationPlan, *, strict: bool) -> tuple[fx.GraphModule, list[PatternMatch], list[Declined]]:
    """Apply a plan.

    The graph that was prepared while planning is used if it was converted as the plan now says. If conversions were
    switched since, it is prepared again, and a match that the plan has not seen is applied as if it had been planned.

    Raises:
        PlanError: The plan was applied before.
        PatternError: A rewrite failed, and ``strict`` is set.
    """
    if plan.applied:
        raise PlanError(
            "This plan was applied before. Its first result holds the model's parameters; make a new plan with "
            "get_transformation_plan, or load it from JSON."
        )
    decide = plan.decider()
    prepared = plan.take_prepared()
    if prepared is None or any(m.apply != (m.status is MatchStatus.APPLIED) for m in prepared.conversions.matches):
        prepared = prepare(plan.captured.build(), plan.patterns, decide, strict=strict)
    else:
        resolve_overlaps(prepared.fusions.matches, decide)
    apply_matches(prepared.graph_module, prepared.fusions.matches, strict=strict)
    plan.applied = True
    if any(match.status is MatchStatus.APPLIED for match in prepared.matches):
        take_any_layout(prepared.graph_module)
    _note_not_taken(prepared)
    return rebuild(prepared.graph_module), prepared.matches, prepared.declined


def _note_not_taken(prepared: Prepared) -> None:
    """Write into the metadata of each node why no pattern took it, so that quantization tells the same as the plan."""
    found: dict[str, NotTaken] = {}
    for match in prepared.matches:
        if match.status is MatchStatus.FAILED:
            found |= dict.fromkeys(match.node_names, NotTaken(WhyUnfused.FAILED, match.pattern_name, match.reason))
        elif match.why is Why.SWITCHED_OFF:
            switched_off = NotTaken(WhyUnfused.SWITCHED_OFF, match.pattern_name, match.reason)
            found |= dict.fromkeys(match.node_names, switched_off)
    for refusal in (*prepared.fusions.declined, *prepared.conversions.declined):  # a fusion came nearer to taking it
        for name in refusal.node_names:
            found.setdefault(name, NotTaken(WhyUnfused.DECLINED, refusal.pattern_name, refusal.reason))
    for match in prepared.fusions.matches:
        if match.status is MatchStatus.SKIPPED:
            for name in match.node_names:
                found.setdefault(name, NotTaken(WhyUnfused.OVERLAPS, match.pattern_name, match.reason))
    for node in prepared.graph_module.graph.nodes:
        if node.name in found:
            node.meta[NOT_TAKEN] = found[node.name]
