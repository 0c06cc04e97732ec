"""Prepares a graph: applies conversions, finds fusions and decides about each."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.patterns import Declined, Pattern, PatternMatch
from embedl_deploy.plan.conversions import convert_and_find, without_repeats
from embedl_deploy.plan.finding import Decide, Found, resolve_overlaps


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
