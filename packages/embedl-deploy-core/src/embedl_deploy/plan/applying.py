"""Applies rewrites, and undoes those that fail completely."""

from collections.abc import Sequence
from typing import Any

from torch import fx

from embedl_deploy.errors import PLUGIN_FAILURES, PatternError
from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.graph.dead_code import remove_unused
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.uses import TargetUses, uses_known
from embedl_deploy.patterns import MatchStatus, Pattern, PatternMatch
from embedl_deploy.plan.before import Before, put_back_on_failure
from embedl_deploy.plan.failures import fail
from embedl_deploy.plan.finding import move_up
from embedl_deploy.validation.quoting import quoted


def apply_matches(
    graph_module: fx.GraphModule,
    matches: Sequence[PatternMatch],
    *,
    strict: bool,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Apply every match that is to be applied, in order, and record in each what became of it.

    A graft that cannot be built raises before it touches the graph; what it did to the modules that it was given is put
    back. A pattern's own ``replace`` may raise, or leave a broken graph, after any edit of graph, modules and tensors:
    then all of that is brought back to what it was before, and the rewrites made since are made again, so that nothing
    of the failed one remains. What it was is noted before the first rewrite of that kind and after each failure, so
    the cost is linear in the size of the graph as long as nothing fails.

    What failed leaves its nodes to the next in line, the first match that was skipped for its sake.

    Args:
        graph_module: Changed in place.
        matches: All matches in it, in order of priority.
        strict: Raise at the first failure.
        checkpoint: The graph's present state, if it was taken already.

    Raises:
        PatternError: A rewrite failed, and ``strict`` is set.
    """
    pending = [match for match in matches if match.apply]
    while pending:
        waiting = [match for match in matches if match.status is MatchStatus.SKIPPED]
        _apply(graph_module, pending, waiting, strict=strict, checkpoint=checkpoint)
        checkpoint = None
        pending = move_up(matches, [match for match in pending if match.status is MatchStatus.FAILED])


def _apply(
    graph_module: fx.GraphModule,
    pending: Sequence[PatternMatch],
    waiting: Sequence[PatternMatch],
    *,
    strict: bool,
    checkpoint: Checkpoint | None,
) -> None:
    """Apply ``pending``; of ``waiting`` it is only kept up to date which nodes they are of."""
    first = next((i for i, match in enumerate(pending) if _has_own_replace(match)), len(pending))
    _Run(graph_module, waiting, strict=strict).apply(pending[:first])
    rest = pending[first:]
    if not rest:
        return
    causes = [match.cause for match in rest]
    run = _Run(graph_module, waiting, strict=strict)
    run.before = before = Before(graph_module, checkpoint if first == 0 else None)
    with before.noting_writes():
        run.apply(rest)
    if _problem(graph_module) is None:
        return
    # Some rewrite left a broken graph without raising. Start over, and look at the graph after every single one.
    moved = before.restore()
    for match in (*rest, *waiting):
        match.tree_match = match.tree_match.moved(moved)
    for match, cause in zip(rest, causes, strict=True):
        match.status, match.apply, match.cause, match.replaced_by = MatchStatus.PLANNED, True, cause, ()
    run = _Run(graph_module, waiting, strict=strict, careful=True)
    run.before = before.restored()
    run.apply(rest)


def _has_own_replace(match: PatternMatch) -> bool:
    return type(match.pattern).replace is not Pattern.replace


def _calls(nodes: Sequence[fx.Node]) -> list[Any]:
    """What nodes compute and who reads them, to compare with what they are later."""
    return [
        (node.target, node.args, node.kwargs, tuple(node.users), get_module(node) if node.op == "call_module" else None)
        for node in nodes
    ]


def _check_replaced(nodes: object, replaced: Sequence[fx.Node], before: list[Any]) -> None:
    """Check what a pattern's own ``replace`` returns and did: a match that is still there was not rewritten.

    Args:
        nodes: What it returned.
        replaced: The matched nodes.
        before: What :func:`_calls` gave for them.

    Raises:
        PatternError: It returned no list of nodes, nodes that are not in the graph, or it changed nothing.
    """
    if not isinstance(nodes, (list, tuple)) or not all(isinstance(node, fx.Node) for node in nodes):
        raise PatternError(f"replace() returned {quoted(nodes)}; expected the list of new nodes")
    gone = [node.name for node in nodes if node._erased or node.graph is not replaced[0].graph]
    if gone:
        raise PatternError(
            f"replace() returned nodes that are not in the graph: {', '.join(gone)}; expected the new nodes, or [] "
            "where a match is only removed"
        )
    if any(node._erased for node in replaced) or _calls(replaced) != before:
        return
    if not nodes:
        raise PatternError(
            "replace() returned [] but did not change the matched nodes, so nothing was replaced; expected the list of "
            "new nodes, or [] after it removed the matched nodes. If this match cannot be replaced, decline it in "
            "check()"
        )
    unread = [node.name for node in nodes if node not in replaced and not node.users]
    if len(unread) == len(nodes):
        raise PatternError(
            f"replace() created {', '.join(unread)}, which no other node reads, and did not change the matched nodes. "
            "Call replace_match(match, new_node) to replace them"
        )


def _problem(graph_module: fx.GraphModule) -> Exception | None:
    """What is wrong with a graph, if anything."""
    try:
        graph_module.graph.lint()
    except (RuntimeError, ValueError, AttributeError) as error:
        return error
    return None


class _Run:
    """One pass over matches, with what is needed to go back."""

    def __init__(
        self, graph_module: fx.GraphModule, waiting: Sequence[PatternMatch], *, strict: bool, careful: bool = False
    ) -> None:
        self.graph_module = graph_module
        self.waiting = waiting
        self.strict = strict
        self.careful = careful
        self.before: Before | None = None
        self.done: list[PatternMatch] = []  # since then
        self._wanted: set[str] = {name for match in waiting for name in match.node_names}
        self.uses = TargetUses(graph_module.graph)

    def apply(self, pending: Sequence[PatternMatch]) -> None:
        """Apply the matches in order."""
        self._wanted.update(name for match in pending for name in match.node_names)
        for index, match in enumerate(pending):
            error = self._try(match)
            if error is None:
                self.done.append(match)
                continue
            fail(
                match,
                "replace" if _has_own_replace(match) else "its graft",
                error,
                f"{type(error).__name__}: {error}",
                consequence="Nothing of it remains; the rest is rewritten.",
                strict=self.strict,
            )
            if self.before is not None:
                self._go_back(self.before, pending[index + 1 :])

    def _go_back(self, before: Before, later: Sequence[PatternMatch]) -> None:
        moved = before.restore()
        self.uses = TargetUses(self.graph_module.graph)
        for match in (*self.done, *later, *self.waiting):
            match.tree_match = match.tree_match.moved(moved)
        for match in self.done:
            error = self._try(match)
            if error is not None:
                raise PatternError(
                    f"Pattern {match.pattern_name!r} rewrote {match.node_name!r} once but failed the second time: "
                    f"{error}. A rewrite must depend on the match alone."
                ) from error
        self.before = Before(self.graph_module) if self.done else before.restored()
        self.done = []

    def _try(self, match: PatternMatch) -> BaseException | None:
        try:
            replaced = match.nodes
            left = dict.fromkeys((*replaced, *(value for node in replaced for value in node.all_input_nodes)))
            before = _calls(replaced)
            # What a pattern's own replace may change is noted in ``before``, all of it.
            known = self.before.noting_writes() if self.before is not None else put_back_on_failure(replaced)
            with uses_known(self.uses), known:
                nodes = match.pattern.replace(match)
            if _has_own_replace(match):
                self.uses.reset()
                _check_replaced(nodes, replaced, before)
        except PLUGIN_FAILURES as error:  # a pattern of a plugin may raise anything
            return error
        problem = _problem(self.graph_module) if self.careful else None
        if problem is None:
            remove_unused(left, replaced, self._wanted - set(match.node_names))
            match.replaced_by = tuple(node.name for node in nodes)
            match.status = MatchStatus.APPLIED
        return problem
