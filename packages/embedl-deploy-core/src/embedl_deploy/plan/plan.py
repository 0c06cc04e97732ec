"""A plan: every decision, open to be read and changed before anything is done to the model."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from embedl_deploy.backend import Backend
from embedl_deploy.errors import PlanError
from embedl_deploy.graph.edit import rebuild
from embedl_deploy.graph.fingerprint import fingerprint
from embedl_deploy.patterns import Declined, Pattern, PatternMatch, validate_pattern
from embedl_deploy.plan.applying import apply_matches
from embedl_deploy.plan.conversions import run_conversions, without_repeats
from embedl_deploy.plan.finding import Decide, Found, find_matches, resolve_overlaps
from embedl_deploy.plan.serialization import plan_to_json
from embedl_deploy.plan.tables import plan_table
from embedl_deploy.plan.why_not import why_not

MatchTable = dict[str, dict[str, PatternMatch]]


@dataclass(eq=False)
class TransformationPlan:
    """What would be rewritten in a model, and why the rest would not.

    Attributes:
        model: The captured graph, a copy of the user's model, before any rewrite.
        matches: For each node at which matches end, the matches by pattern name, conversions first. Node names are
            those of the graph at the time of the match: fusions see the converted graph.
        declined: Places where a pattern's tree fits but must not be applied, with the reason.
        patterns: The patterns, in order of priority.
        backend: The backend that they came from, if they came from one.
        capture_method: ``"symbolic"``, ``"export"`` or ``"given"``.
        notes: What the user should know about how the model was captured.
        original: The user's model, to compare with.
        converted: The graph after the planned conversions, in which fusions were found. Shares its modules with
            ``model``; not to be changed.
    """

    model: fx.GraphModule
    matches: MatchTable
    declined: list[Declined]
    patterns: tuple[Pattern, ...]
    backend: Backend | None
    capture_method: str
    notes: tuple[str, ...]
    original: nn.Module
    converted: fx.GraphModule
    applied: bool = False
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        self.fingerprint = fingerprint(self.model)

    def __iter__(self) -> Iterator[PatternMatch]:
        """All matches, in the order of the table."""
        for by_pattern in self.matches.values():
            yield from by_pattern.values()

    def get(self, node_name: str, pattern_name: str) -> PatternMatch:
        """The match of a pattern that ends at a node.

        Raises:
            PlanError: There is none; the message lists what there is.
        """
        try:
            return self.matches[node_name][pattern_name]
        except KeyError:
            there = self.matches.get(node_name)
            have = f"at {node_name!r} there are {list(there)}" if there else f"no match ends at {node_name!r}"
            raise PlanError(f"The plan has no match of {pattern_name!r} at {node_name!r}: {have}.") from None

    def disable(self, node_name: str, pattern_name: str) -> list[PatternMatch]:
        """Switch one match off, and let the matches that it had displaced move up.

        Setting ``match.apply = False`` switches off just that match and leaves its nodes alone.

        Returns:
            The matches that take over nodes of it.
        """
        target = self.get(node_name, pattern_name)
        target.apply, target.reason = False, "switched off in the plan"
        freed = set(target.node_names)
        taken = {name for match in self if match.apply and match.stage == target.stage for name in match.node_names}
        promoted = []
        for match in self._in_priority():
            names = set(match.node_names)
            if match.stage == target.stage and match is not target and names & freed and not names & taken:
                match.apply, match.reason = True, ""
                taken |= names
                promoted.append(match)
        return promoted

    def _in_priority(self) -> list[PatternMatch]:
        order = {id(pattern): index for index, pattern in enumerate(self.patterns)}
        return sorted(self, key=lambda match: order.get(id(match.pattern), len(order)))

    def why_not(self, node: str, pattern: str | None = None) -> list[str]:
        """Why patterns do not take a node: one line per pattern that could concern it.

        Args:
            node: Name of a node, or path of a module.
            pattern: Only this pattern.

        Raises:
            PlanError: There is no such node, or no such pattern.
        """
        return why_not(self, node, pattern)

    def to_json(self) -> str:
        """The plan as JSON text, for review, version control and :meth:`from_json`."""
        return plan_to_json(self)

    def __str__(self) -> str:
        return plan_table(self)


def tabulate(matches: Sequence[PatternMatch]) -> MatchTable:
    """Arrange matches by node and pattern name; a pattern's further matches at one node get ``#2``, ``#3``, …"""
    table: MatchTable = {}
    for match in matches:
        row = table.setdefault(match.node_name, {})
        name, count = match.pattern_name, 1
        while name in row:
            count += 1
            name = f"{match.pattern_name}#{count}"
        row[name] = match
    return table


def working_copy(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A graph module with its own graph and module tree, sharing the modules themselves."""
    name = type(graph_module).__name__
    return fx.GraphModule(graph_module, copy.deepcopy(graph_module.graph), class_name=name)


def find_all(
    graph_module: fx.GraphModule, patterns: Sequence[Pattern], decide: Decide, *, strict: bool
) -> tuple[Found, Found]:
    """Convert ``graph_module`` in place, then find fusions in it and decide between them."""
    for pattern in patterns:
        validate_pattern(pattern)
    conversions = [pattern for pattern in patterns if pattern.is_conversion]
    fusions = [pattern for pattern in patterns if not pattern.is_conversion]
    converted = run_conversions(graph_module, conversions, decide, strict=strict)
    fused = find_matches(graph_module, fusions, strict=strict)
    resolve_overlaps(fused.matches, decide)
    return converted, fused


def make_plan(
    captured: fx.GraphModule,
    patterns: Sequence[Pattern],
    *,
    backend: Backend | None,
    capture_method: str,
    notes: tuple[str, ...],
    original: Any,
    strict: bool,
) -> TransformationPlan:
    """Plan the transformation of a captured model.

    Raises:
        PatternError: A pattern is declared wrongly, or fails and ``strict`` is set.
    """
    scratch = working_copy(captured)
    converted, fused = find_all(scratch, patterns, lambda match: None, strict=strict)
    return TransformationPlan(
        model=captured,
        matches=tabulate([*converted.matches, *fused.matches]),
        declined=without_repeats([*converted.declined, *fused.declined]),
        patterns=tuple(patterns),
        backend=backend,
        capture_method=capture_method,
        notes=notes,
        original=original,
        converted=scratch,
    )


def carry_out(plan: TransformationPlan, *, strict: bool) -> tuple[fx.GraphModule, list[PatternMatch], list[Declined]]:
    """Carry out a plan, on a graph of its own.

    Matches are found anew, since switching a conversion off changes what comes after it; each is applied as the plan
    says, and a match that the plan has not seen as if it had been planned.

    Raises:
        PlanError: The plan was applied before.
        PatternError: A rewrite failed, and ``strict`` is set.
    """
    if plan.applied:
        raise PlanError(
            "This plan was applied before. Its first result holds the model's parameters; make a new plan with "
            "get_transformation_plan, or load it from JSON."
        )
    decisions = {(m.stage, m.pattern_name, m.node_names): m.apply for m in plan}

    def decide(match: PatternMatch) -> bool | None:
        return decisions.get((match.stage, match.pattern_name, match.node_names))

    graph_module = working_copy(plan.model)
    converted, fused = find_all(graph_module, plan.patterns, decide, strict=strict)
    apply_matches(graph_module, fused.matches, strict=strict)
    plan.applied = True
    declined = without_repeats([*converted.declined, *fused.declined])
    return rebuild(graph_module), [*converted.matches, *fused.matches], declined
