"""Matches a pattern's tree against a graph.

The tree is read from its last element backwards, so each node of the graph is tried once as the place where a match
ends. A value in the middle of a match that something outside also uses (another operator, the model's output) must
stay alive, so such a place is declined, with the reason.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations

from torch import fx

from embedl_deploy.errors import PLUGIN_FAILURES, PatternError
from embedl_deploy.graph.arguments import constant_arguments, tensor_inputs
from embedl_deploy.graph.index import call_index
from embedl_deploy.graph.kept_types import why_not_a_new_value
from embedl_deploy.graph.operators import is_commutative
from embedl_deploy.patterns.matches import Declined, Matches, PatternLike, PatternMatch
from embedl_deploy.patterns.tree import CompiledFork, CompiledTree, CompiledWildcard
from embedl_deploy.patterns.tree_match import ForkMatch, Placement, TreeMatch, WildcardMatch
from embedl_deploy.validation.checked import checked


class CheckResultError(PatternError):
    """A pattern's ``check`` returned neither a reason nor ``None``."""


@checked
def match_tree(graph_module: fx.GraphModule, pattern: PatternLike) -> Matches:
    """Find every place in ``graph_module`` where the tree of ``pattern`` fits.

    At most one match ends at a node. A match whose nodes are all part of another match of the same pattern is
    dropped. Matches of one pattern may share nodes otherwise; a plan decides between them.

    Returns:
        The matches in graph order, with ``.declined`` beside them, and ``.failed``: where ``check`` raised something,
        or returned neither a reason nor ``None``.

    Raises:
        PatternError: The tree is not well formed.
    """
    tree = pattern.compiled_tree()
    found: list[PatternMatch] = []
    declined: list[Declined] = []
    failed: list[tuple[PatternMatch, BaseException]] = []
    index = call_index(graph_module.graph)
    for node in index.in_order(node for element in tree.ends() for node in element.candidates(index)):
        refusal: Declined | None = None
        for placements in _match_ending_at(tree, len(tree.elements) - 1, node):
            candidate = TreeMatch(tuple(placements))
            reason = outside_use(candidate.nodes) or _own_operand(candidate) or _kept_type(candidate)
            if reason is None:
                match = PatternMatch(pattern, candidate)
                try:
                    reason = _checked(match)
                except PLUGIN_FAILURES as error:  # a pattern of a plugin may raise anything
                    failed.append((match, error))
                    refusal = None
                    break
                if reason is None and pattern.is_grafted:
                    reason = _lost_argument(candidate)
                if reason is None:
                    found.append(match)
                    refusal = None
                    break
            if refusal is None:
                refusal = Declined(pattern.name, tuple(n.name for n in candidate.nodes), reason)
        if refusal is not None:
            declined.append(refusal)
    kept = _without_contained(found)
    outer = {id(match) for match in kept}
    return Matches(kept, declined, [match for match in found if id(match) not in outer], failed)


def _lost_argument(tree_match: TreeMatch) -> str | None:
    """Why a graft, which is called with what flows in, cannot stand for the calls of a match, or ``None``."""
    nodes = tree_match.nodes
    if len(nodes) == 1:
        return None  # the replacement is called with all arguments of the one call
    for node in nodes:
        for name, value in constant_arguments(node).items() if node.op == "call_module" else ():
            return f"{node.name} is called with {name}={value!r}, which the module in its place would not be given"
    return None


def _kept_type(tree_match: TreeMatch) -> str | None:
    """Why a call that writes in place is not the operation that its element stands for, or ``None``."""
    return next((reason for node in tree_match.nodes if (reason := why_not_a_new_value(node)) is not None), None)


def _checked(match: PatternMatch) -> str | None:
    """What the pattern's ``check`` says."""
    reason: object = match.pattern.check(match)
    if reason is None or isinstance(reason, str):
        return reason
    raise CheckResultError(
        f"check() returned {reason!r}; expected None to take the place, or the reason not to as text"
    )


def _without_contained(matches: list[PatternMatch]) -> list[PatternMatch]:
    """Drop matches that lie wholly inside a longer match of the same pattern."""
    sizes = {id(match): len(match.nodes) for match in matches}
    holders: dict[fx.Node, list[PatternMatch]] = {}
    for match in matches:
        for node in match.nodes:
            holders.setdefault(node, []).append(match)

    def contained(match: PatternMatch) -> bool:
        nodes = set(match.nodes)
        return any(
            sizes[id(other)] > sizes[id(match)] and nodes <= set(other.nodes) for other in holders[match.nodes[0]]
        )

    return [match for match in matches if not contained(match)]


def outside_use(nodes: Sequence[fx.Node]) -> str | None:
    """Why nodes, the last of which gives their value, cannot be taken together, or ``None``."""
    inside, last = set(nodes), nodes[-1]
    for node in nodes:
        if node is last:
            continue
        outside = [user for user in node.users if user not in inside]
        if any(user.op == "output" for user in outside):
            return f"{node.name} is an output of the model"
        if outside:
            users = ", ".join(user.name for user in node.users)
            return f"{node.name} feeds {len(node.users)} users ({users})"
    return None


def _own_operand(tree_match: TreeMatch) -> str | None:
    """Why an operand that is to come from outside does not, or ``None``."""
    inside = set(tree_match.nodes)
    for value in _free_operands(tree_match):
        if value in inside:
            return f"{value.name} is also the match's own other input"
    return None


def _free_operands(tree_match: TreeMatch) -> Iterator[fx.Node]:
    """Operands of forks that are to come from outside."""
    for placement in tree_match.placements:
        if isinstance(placement, ForkMatch):
            operands = tensor_inputs(placement.node)
            for branch, operand in zip(placement.branches, placement.operands, strict=True):
                if branch.nodes:
                    yield from _free_operands(branch)
                else:
                    yield operands[operand]


def _flow_inputs(node: fx.Node) -> list[fx.Node]:
    """The inputs through which a trunk may continue: the first, or any operand of a commutative operation."""
    inputs = tensor_inputs(node)
    return list(dict.fromkeys(inputs)) if is_commutative(node) else inputs[:1]


def _match_ending_at(tree: CompiledTree, index: int, node: fx.Node) -> Iterator[list[Placement]]:
    """All ways to lay elements ``0..index`` so that the last of them ends at ``node``, the greediest first."""
    element = tree.elements[index]
    if isinstance(element, CompiledWildcard):
        yield from _match_wildcard(tree, index, element, node)
    elif isinstance(element, CompiledFork):
        for fork in _match_fork(element, node):
            yield [fork]
    elif element.accepts(node):
        if index == 0:
            yield [node]
        elif all(isinstance(e, CompiledWildcard) for e in tree.elements[:index]) and not tensor_inputs(node):
            yield [*(WildcardMatch(()) for _ in range(index)), node]
        for previous in _flow_inputs(node) if index > 0 else ():
            for placements in _match_ending_at(tree, index - 1, previous):
                yield [*placements, node]


def _match_wildcard(
    tree: CompiledTree, index: int, wildcard: CompiledWildcard, node: fx.Node
) -> Iterator[list[Placement]]:
    chain: list[fx.Node] = []
    current = node
    before = [node]  # before[k]: the node that comes before the last k of the chain
    while len(chain) != wildcard.max_count and wildcard.element.accepts(current):
        inputs = tensor_inputs(current)
        chain.append(current)
        if len(inputs) != 1:
            break
        current = inputs[0]
        before.append(current)
    for count in range(len(chain), -1, -1):
        taken = WildcardMatch(tuple(reversed(chain[:count])))
        if index == 0:
            yield [taken]
        elif count < len(before):
            for placements in _match_ending_at(tree, index - 1, before[count]):
                yield [*placements, taken]


def _match_fork(fork: CompiledFork, node: fx.Node) -> Iterator[ForkMatch]:
    if not fork.join.accepts(node):
        return
    operands = tensor_inputs(node)
    if len(operands) != len(fork.branches):
        return
    for order in _orders(fork, node):
        inputs = [operands[operand] for operand in order]
        for branches in _match_branches(fork.branches, inputs, taken=frozenset()):
            yield ForkMatch(node, branches, order)


def _orders(fork: CompiledFork, node: fx.Node) -> Iterator[tuple[int, ...]]:
    """The orders of the operands to try: for each branch, which of them it is to explain."""
    straight = tuple(range(len(fork.branches)))
    if not (fork.any_order or is_commutative(node)):
        yield straight
        return
    free = [index for index, branch in enumerate(fork.branches) if not branch.elements]
    for order in permutations(straight):
        chosen = [order[index] for index in free]
        if len(straight) == 2 or chosen == sorted(chosen):  # those that take anything stay as they are
            yield order


def _match_branches(
    branches: tuple[CompiledTree, ...], operands: list[fx.Node], taken: frozenset[fx.Node]
) -> Iterator[tuple[TreeMatch, ...]]:
    """All ways to lay the branches so that no two share a node, the greediest first."""
    if not branches:
        yield ()
        return
    for match in _match_branch(branches[0], operands[0]):
        if taken.isdisjoint(match.nodes):
            for rest in _match_branches(branches[1:], operands[1:], taken.union(match.nodes)):
                yield (match, *rest)


def _match_branch(branch: CompiledTree, operand: fx.Node) -> Iterator[TreeMatch]:
    if not branch.elements:
        yield TreeMatch(())
        return
    for placements in _match_ending_at(branch, len(branch.elements) - 1, operand):
        yield TreeMatch(tuple(placements))
