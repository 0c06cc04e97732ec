"""Applies conversions repeatedly until none matches."""

from collections.abc import Sequence

from torch import fx

from embedl_deploy.errors import ConversionLoopError
from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.graph.memo import graph_unchanged
from embedl_deploy.graph.new_shapes import write_new_shapes
from embedl_deploy.logs import stage
from embedl_deploy.patterns import Declined, MatchStatus, Pattern, PatternMatch
from embedl_deploy.patterns.causes import Why
from embedl_deploy.plan.applying import apply_matches
from embedl_deploy.plan.finding import Decide, Found, find_matches, resolve_overlaps

#: More rounds than any chain of rewrites of real models needs.
MAX_ROUNDS = 100
#: More rewrites, per node of the captured graph, than conversions that settle make.
MAX_REWRITES_PER_NODE = 20


def convert_and_find(
    graph_module: fx.GraphModule,
    conversions: Sequence[Pattern],
    fusions: Sequence[Pattern],
    decide: Decide,
    *,
    strict: bool,
    checkpoint: Checkpoint | None = None,
) -> tuple[Found, Found]:
    """Convert ``graph_module`` in place to a fixed point, and find the fusions in what comes out.

    ``checkpoint`` may give the graph's present state, if it was taken already.

    Returns:
        Every match of a conversion of every round, with what was declined in the last one, and what the fusions found.

    Raises:
        ConversionLoopError: No fixed point was reached.
        PatternError: A rewrite failed, and ``strict`` is set.
    """
    found, rewrites = Found(), 0
    seen: set[tuple[str, str, tuple[str, ...], int]] = set()
    limit = MAX_REWRITES_PER_NODE * (len(graph_module.graph.nodes) + 1)
    stage("looking for patterns")
    for _ in range(MAX_ROUNDS):
        with graph_unchanged():
            round_found = find_matches(graph_module, conversions, strict=strict, told=seen)
            found.declined = round_found.declined
            # What an earlier round skipped, or failed at, is found again in each later one; it is not news.
            news = [match for match in round_found.matches if match.key not in seen]
            found.matches.extend(news)
            resolve_overlaps(news, decide)
            if not any(match.apply for match in news):
                return found, find_matches(graph_module, fusions, strict=strict)
        apply_matches(graph_module, news, strict=strict, checkpoint=checkpoint)
        write_new_shapes(graph_module)
        checkpoint = None
        applied = [match for match in news if match.status is MatchStatus.APPLIED]
        # A rival's rewrite may have made room for a match that was skipped for it, so only final outcomes are kept.
        seen.update(match.key for match in news if match.why is not Why.OVERLAPS)
        rewrites += len(applied)
        if rewrites > limit:
            break
    raise ConversionLoopError(_loop_message(applied, rewrites))


def _loop_message(applied: list[PatternMatch], rewrites: int) -> str:
    names = ", ".join(dict.fromkeys(repr(match.pattern_name) for match in applied))
    places = ", ".join(match.node_name for match in applied[:3])
    return (
        f"Conversion(s) {names} never settle: still matching (at {places}) after {rewrites} rewrites. "
        "A conversion must not match what it, or another conversion, produces. Narrow the tree, or decline in check()."
    )


def without_repeats(declined: Sequence[Declined]) -> list[Declined]:
    """Each refusal once, in order."""
    return list(dict.fromkeys(declined))
