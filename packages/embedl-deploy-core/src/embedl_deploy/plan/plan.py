"""A plan: every decision, open to be read and changed before anything is done to the model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from torch import fx, nn

from embedl_deploy.backend import Backend
from embedl_deploy.errors import PlanError
from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.graph.edit import rebuild
from embedl_deploy.graph.fingerprint import fingerprint
from embedl_deploy.graph.layouts import take_any_layout
from embedl_deploy.graph.metadata import DECLINED
from embedl_deploy.patterns import Declined, MatchStatus, Pattern, PatternMatch, validate_pattern
from embedl_deploy.plan.applying import apply_matches
from embedl_deploy.plan.conversions import convert_and_find, without_repeats
from embedl_deploy.plan.finding import SWITCHED_OFF, Decide, Found, resolve_overlaps
from embedl_deploy.plan.refusing import refuse_storing
from embedl_deploy.plan.serialization import plan_to_json
from embedl_deploy.plan.tables import plan_table
from embedl_deploy.plan.why_not import matches_touching, no_match_at, why_not
from embedl_deploy.validation.checked import checked

MatchTable = dict[str, dict[str, PatternMatch]]


@dataclass(eq=False)
class Prepared:
    """A converted graph and what was found on the way there and in it.

    Attributes:
        graph_module: The graph after conversions, with a module tree of its own that shares the captured modules.
        conversions: Matches of all rounds, and what was declined in the last.
        fusions: Matches in the converted graph.
    """

    graph_module: fx.GraphModule
    conversions: Found
    fusions: Found

    @property
    def matches(self) -> list[PatternMatch]:
        """All matches, conversions first."""
        return [*self.conversions.matches, *self.fusions.matches]

    @property
    def declined(self) -> list[Declined]:
        """All refusals, each once."""
        return without_repeats([*self.conversions.declined, *self.fusions.declined])


@checked
@dataclass(eq=False)
class TransformationPlan:
    """What would be rewritten in a model, and why the rest would not.

    Attributes:
        captured: The captured graph before any rewrite; ``model`` is made from it.
        matches: For each node at which matches end, the matches by pattern name, conversions first. Node names are
            those of the graph at the time of the match: fusions see the converted graph.
        declined: Places where a pattern's tree fits but must not be applied, with the reason.
        patterns: The patterns, in order of priority.
        backend: The backend that they came from, if they came from one.
        capture_method: ``"symbolic"``, ``"export"`` or ``"given"``.
        notes: What the user should know about how the model was captured.
        original: The user's model, to compare with.
        applied: Whether the plan was carried out; it can be only once.
    """

    captured: Checkpoint
    matches: MatchTable
    declined: list[Declined]
    patterns: tuple[Pattern, ...]
    backend: Backend | None
    capture_method: str
    notes: tuple[str, ...]
    original: nn.Module
    applied: bool = False
    _prepared: Prepared | None = None

    def __reduce__(self) -> NoReturn:
        refuse_storing(self)

    @cached_property
    def model(self) -> fx.GraphModule:
        """The captured graph, a copy of the user's model, before any rewrite."""
        return self.captured.build()

    @cached_property
    def fingerprint(self) -> str:
        """Tells models of different structure apart; the same for every set of weights."""
        return fingerprint(self.model)

    @cached_property
    def converted(self) -> fx.GraphModule:
        """The graph after the planned conversions, in which fusions were found. For looking at, not for changing."""
        if self._prepared is not None:
            return self._prepared.graph_module
        return prepare(self.captured.build(), self.patterns, self.decider(), strict=False).graph_module

    def decider(self) -> Decide:
        """The plan's decisions as they are now, as a function of a match."""
        decisions = {match.key: match.apply for match in self}
        return lambda match: decisions.get(match.key)

    def take_prepared(self) -> Prepared | None:
        """Hand over the graph that was prepared while planning; it is gone from the plan then."""
        prepared, self._prepared = self._prepared, None
        self.__dict__.pop("converted", None)
        return prepared

    def __iter__(self) -> Iterator[PatternMatch]:
        """All matches, in the order of the table."""
        for by_pattern in self.matches.values():
            yield from by_pattern.values()

    @checked
    def get(self, node_name: str, pattern_name: str) -> PatternMatch:
        """The match of a pattern that ends at a node.

        Raises:
            PlanError: There is none; the message lists what there is.
        """
        try:
            return self.matches[node_name][pattern_name]
        except KeyError:
            raise PlanError(no_match_at(self, node_name, pattern_name)) from None

    @checked
    def disable(self, node_name: str, pattern_name: str) -> list[PatternMatch]:
        """Switch matches of a pattern off, and let the matches that they had displaced move up.

        Setting ``match.apply = False`` switches off just that match and leaves its nodes alone.

        Args:
            node_name: The node at which a match ends; or any node that it takes, or the path of a module. The path of a
                container means all matches of the pattern that take something in it.
            pattern_name: The pattern; a further match of it at that node is called ``"Pattern#2"``, and is meant as
                well where the first is off.

        Returns:
            The matches that take over nodes, if any do.

        Raises:
            PlanError: There is no such match; the message lists what there is.
        """
        row = self.matches.get(node_name, {})
        targets = [row[pattern_name]] if pattern_name in row else matches_touching(self, node_name, pattern_name)
        if pattern_name in row and not row[pattern_name].apply:  # one that lost, as "Pattern#2" may be on
            targets += [match for match in row.values() if match.pattern_name == pattern_name and match.apply]
        if not targets:
            raise PlanError(no_match_at(self, node_name, pattern_name))
        return [promoted for target in targets for promoted in self._switch_off(target, targets)]

    def _switch_off(self, target: PatternMatch, others: Sequence[PatternMatch]) -> list[PatternMatch]:
        """Switch one match off; the matches that move up, of which the others that are to go are none."""
        target.apply, target.reason = False, SWITCHED_OFF
        freed = set(target.node_names)
        taken = {name for match in self if match.apply and match.stage == target.stage for name in match.node_names}
        promoted = []
        for match in self._in_priority():
            names = set(match.node_names)
            rival = match.stage == target.stage and match not in others and match.status is not MatchStatus.FAILED
            if rival and names & freed and not names & taken:
                match.apply, match.reason = True, ""
                taken |= names
                promoted.append(match)
        return promoted

    def _in_priority(self) -> list[PatternMatch]:
        order = {id(pattern): index for index, pattern in enumerate(self.patterns)}
        return sorted(self, key=lambda match: order.get(id(match.pattern), len(order)))

    @checked
    def why_not(self, node: str, pattern: str | None = None) -> list[str]:
        """Why patterns do not take a node: one line per pattern that could concern it.

        Args:
            node: Name of a node, or path of a module. Of a container, what takes the nodes in it, and why not for each
                node that nothing takes.
            pattern: Only this pattern.

        Raises:
            PlanError: There is no such node, or no such pattern.
        """
        return why_not(self, node, pattern)

    def to_json(self) -> str:
        """The plan as JSON text, for review, version control and :func:`load_transformation_plan`."""
        return plan_to_json(self)

    @property
    def model_name(self) -> str:
        """Class name of the model."""
        return type(self.original).__name__

    def __str__(self) -> str:
        return plan_table(self)


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


def prepare(
    graph_module: fx.GraphModule,
    patterns: Sequence[Pattern],
    decide: Decide,
    *,
    strict: bool,
    checkpoint: Checkpoint | None = None,
) -> Prepared:
    """Convert a captured graph in place, find fusions in it, and decide between them.

    ``checkpoint`` may give the graph's present state, if it was taken already.
    """
    conversions = [pattern for pattern in patterns if pattern.is_conversion]
    fusions = [pattern for pattern in patterns if not pattern.is_conversion]
    converted, fused = convert_and_find(
        graph_module, conversions, fusions, decide, strict=strict, checkpoint=checkpoint
    )
    resolve_overlaps(fused.matches, decide)
    return Prepared(graph_module, converted, fused)


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
    """Carry out a plan.

    The graph that was prepared while planning is used if it was converted as the plan now says. If conversions were
    switched since, it is prepared anew, and a match that the plan has not seen is applied as if it had been planned.

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
    _note_declined(prepared)
    return rebuild(prepared.graph_module), prepared.matches, prepared.declined


def _note_declined(prepared: Prepared) -> None:
    """Write into the metadata of each node why it was declined, so that quantization can tell why it is in float."""
    reasons: dict[str, str] = {}
    for refusal in prepared.declined:
        for name in refusal.node_names:
            reasons.setdefault(name, refusal.reason)
    for node in prepared.graph_module.graph.nodes:
        if node.name in reasons:
            node.meta[DECLINED] = reasons[node.name]
