"""Making the rewrites, so that one that fails leaves nothing behind."""

import logging
from collections.abc import Sequence

from torch import fx

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.patterns import MatchStatus, PatternMatch

_logger = logging.getLogger(__name__)


def apply_matches(graph_module: fx.GraphModule, matches: Sequence[PatternMatch], *, strict: bool) -> None:
    """Apply every match that is to be applied, in order, and record in each what became of it.

    If a rewrite raises, the graph is brought back to a checkpoint and the rewrites made since are made again, so that
    nothing of the failed one remains. One checkpoint is taken at the start and one after each failure, so the cost is
    linear in the size of the graph as long as nothing fails.

    Raises:
        PatternError: A rewrite failed, and ``strict`` is set.
    """
    pending = [match for match in matches if match.apply]
    if not pending:
        return
    before = Checkpoint(graph_module)
    _apply(graph_module, pending, strict=strict, careful=False, checkpoint=before)
    if _is_sound(graph_module):
        return
    # Some rewrite left a broken graph without raising. Start over, and look after every single one.
    moved = before.restore()
    for match in pending:
        match.tree_match = match.tree_match.moved(moved)
        match.status, match.apply, match.reason, match.replaced_by = MatchStatus.PLANNED, True, "", ()
    _apply(graph_module, pending, strict=strict, careful=True, checkpoint=Checkpoint(graph_module))


def _is_sound(graph_module: fx.GraphModule) -> bool:
    try:
        graph_module.graph.lint()
    except (RuntimeError, ValueError, AttributeError):
        return False
    return True


def _apply(
    graph_module: fx.GraphModule,
    pending: Sequence[PatternMatch],
    *,
    strict: bool,
    careful: bool,
    checkpoint: Checkpoint,
) -> None:
    done: list[PatternMatch] = []  # since the checkpoint
    for index, match in enumerate(pending):
        error = _try(graph_module, match, careful)
        if error is None:
            done.append(match)
            continue
        match.status, match.apply = MatchStatus.FAILED, False
        match.reason = f"{type(error).__name__}: {error}"
        if strict:
            raise PatternError(
                f"Pattern {match.pattern_name!r} failed at {match.node_name!r} (nodes {', '.join(match.node_names)}): "
                f"{match.reason}. Repair the pattern, switch this match off, or use strict=False to go on without it."
            ) from error
        _logger.warning("%s failed at %s and was undone: %s", match.pattern_name, match.node_name, match.reason)
        moved = checkpoint.restore()
        for later in (*done, *pending[index + 1 :]):
            later.tree_match = later.tree_match.moved(moved)
        for earlier in done:
            again = _try(graph_module, earlier, careful)
            if again is not None:
                raise PatternError(
                    f"Pattern {earlier.pattern_name!r} rewrote {earlier.node_name!r} once but failed the second time: "
                    f"{again}. A rewrite must depend on the match alone."
                ) from again
        checkpoint = Checkpoint(graph_module)
        done = []


def _try(graph_module: fx.GraphModule, match: PatternMatch, careful: bool) -> Exception | None:
    try:
        nodes = match.pattern.replace(match)
        if not isinstance(nodes, (list, tuple)) or not all(isinstance(node, fx.Node) for node in nodes):
            raise PatternError(f"replace() returned {nodes!r}; expected the list of new nodes")
        if careful:
            graph_module.graph.lint()
    except Exception as error:  # a pattern of a plugin may raise anything
        return error
    match.replaced_by = tuple(node.name for node in nodes)
    match.status = MatchStatus.APPLIED
    return None
