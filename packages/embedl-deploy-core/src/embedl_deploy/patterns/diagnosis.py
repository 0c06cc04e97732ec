"""Finds the reason why a pattern does not match a node.

The tree is laid over the graph so that one of its elements falls on the node in question, and followed in both
directions for as long as it fits; the attempt that gets furthest gives the reason.
"""

from torch import fx

from embedl_deploy.graph.arguments import tensor_inputs
from embedl_deploy.graph.forms.fixed_mode import class_name
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.patterns.elements import Element
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.tree import CompiledFork, CompiledTree, CompiledWildcard

_Position = Element | CompiledWildcard | CompiledFork


def explain_mismatch(pattern: Pattern, node: fx.Node) -> str | None:
    """Why the tree of ``pattern`` does not fit around ``node``.

    Returns:
        The reason; ``None`` when no element of the tree fits the node at all, or the tree fits everywhere.
    """
    best: tuple[int, str | None] = (0, None)
    for trunk in _trunks(pattern.compiled_tree()):
        for index, element in enumerate(trunk):
            if _accepts(element, node):
                best = max(best, _attempt(trunk, index, node), key=lambda attempt: attempt[0])
    return best[1]


def _trunks(tree: CompiledTree) -> list[list[_Position]]:
    """Every path through the tree from one of its heads to its end."""
    first = tree.elements[0] if tree.elements else None
    if not isinstance(first, CompiledFork):
        return [list(tree.elements)]
    heads = [trunk for branch in first.branches for trunk in _trunks(branch)]
    return [[*head, first, *tree.elements[1:]] for head in heads if head] or [list(tree.elements)]


def _accepts(element: _Position, node: fx.Node) -> bool:
    if isinstance(element, CompiledWildcard):
        return element.element.accepts(node)
    return (element.join if isinstance(element, CompiledFork) else element).accepts(node)


def _describe(element: _Position) -> str:
    if isinstance(element, CompiledWildcard):
        return f"optionally {element.element.describe()}"
    return (element.join if isinstance(element, CompiledFork) else element).describe()


def describe_node(node: fx.Node) -> str:
    """A node with what it computes, for messages: ``"bn1 (BatchNorm2d)"``."""
    if node.op in ("placeholder", "output"):
        return f"the model's {'input' if node.op == 'placeholder' else 'output'}"
    module = get_module(node)
    kind = class_name(module) if module is not None else getattr(node.target, "__name__", str(node.target))
    return f"{node.name} ({kind})"


def _attempt(trunk: list[_Position], index: int, node: fx.Node) -> tuple[int, str | None]:
    fitted, reason = _follow_back(trunk, index, node)
    if reason is not None:
        return fitted, reason
    forward, reason = _follow_forward(trunk, index, node)
    return fitted + forward, reason


def _follow_back(trunk: list[_Position], index: int, node: fx.Node) -> tuple[int, str | None]:
    fitted, current = 1, node
    for element in reversed(trunk[:index]):
        inputs = tensor_inputs(current)
        if not inputs:
            return fitted, f"{current.name} has no input"
        previous = next((value for value in inputs if _accepts(element, value)), None)
        if previous is None:
            if isinstance(element, CompiledWildcard):
                continue
            found = " and ".join(describe_node(value) for value in inputs)
            return fitted, f"{current.name} comes after {found}, expected {_describe(element)}"
        if len(previous.users) > 1:
            return fitted + 1, _many_users(previous)
        fitted, current = fitted + 1, previous
    return fitted, None


def _follow_forward(trunk: list[_Position], index: int, node: fx.Node) -> tuple[int, str | None]:
    fitted, current = 0, node
    for element in trunk[index + 1 :]:
        following = next((user for user in current.users if _accepts(element, user)), None)
        if following is None:
            if isinstance(element, CompiledWildcard):
                continue
            found = " and ".join(describe_node(user) for user in current.users) or "nothing"
            return fitted, f"{current.name} is followed by {found}, expected {_describe(element)}"
        if len(current.users) > 1:
            return fitted + 1, _many_users(current)
        fitted, current = fitted + 1, following
    return fitted, None


def _many_users(node: fx.Node) -> str:
    if any(user.op == "output" for user in node.users):
        return f"{node.name} is an output of the model"
    return f"{node.name} feeds {len(node.users)} users ({', '.join(user.name for user in node.users)})"
