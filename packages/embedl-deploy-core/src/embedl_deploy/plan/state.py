"""The state of a plan: its matches and decisions."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import fx, nn

from embedl_deploy.backend import Backend
from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.graph.fingerprint import fingerprint
from embedl_deploy.patterns import Declined, Pattern, PatternMatch
from embedl_deploy.plan.finding import Decide
from embedl_deploy.plan.preparing import Prepared, prepare

MatchTable = dict[str, dict[str, PatternMatch]]


@dataclass(eq=False)
class PlanState:
    """What a plan knows and has decided: what its tables, its JSON and its answers are made of.

    Attributes are those of :class:`~embedl_deploy.plan.TransformationPlan`.
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

    @property
    def model_name(self) -> str:
        """Class name of the model."""
        return type(self.original).__name__

    def __iter__(self) -> Iterator[PatternMatch]:
        """All matches, in the order of the table."""
        for by_pattern in self.matches.values():
            yield from by_pattern.values()
