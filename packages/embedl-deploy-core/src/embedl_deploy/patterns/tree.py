"""The tree language: sequences of elements in the order in which data flows, with wildcards and forks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from embedl_deploy.errors import PatternError
from embedl_deploy.patterns.elements import Element, compile_element
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True, init=False)
class Wildcard:
    """Zero or more nodes in a row, each of which fits one of the given elements. Matches as many as it can.

    Args:
        elements: An element, or a tuple of alternatives.
        max_count: The most nodes to take; ``None`` for no limit. With 1 it reads "optional", and a graft gets the
            module or ``None``; without a limit it gets a tuple of modules.
    """

    elements: Any
    max_count: int | None = None

    def __init__(self, elements: Any, max_count: int | None = None) -> None:
        if max_count is not None and max_count < 1:
            raise PatternError(f"Wildcard: max_count is {max_count}; expected None or at least 1.")
        object.__setattr__(self, "elements", elements)
        object.__setattr__(self, "max_count", max_count)


@checked
@dataclass(frozen=True, init=False)
class Fork:
    """A node in which branches meet, such as an addition. Must be the first element of its trunk.

    Args:
        join: The element of the node that joins.
        branches: One tree per operand, in operand order; the empty tree ``()`` takes any value and consumes nothing.
            If the join is commutative the operands may come in any order.
        any_order: The operands may come in any order although the order makes a difference, as in a concatenation. A
            graft is then given the order before what the join gives: for each branch, the position of its
            operand. In ``replace`` and ``check`` it is ``match.tree_match.placements[0].operands``.

    Example:
        ``Fork(operator.add, (nn.Conv2d, nn.BatchNorm2d), ())`` is a batch-normalized convolution plus anything;
        ``Fork(torch.cat, (nn.Conv2d,), (), any_order=True)`` is a convolution beside anything.
    """

    join: Any
    branches: tuple[Sequence[Any], ...]
    any_order: bool = False

    def __init__(self, join: Any, *branches: Sequence[Any], any_order: bool = False) -> None:
        if len(branches) < 2:
            raise PatternError(
                f"Fork: {len(branches)} branch(es) given, expected at least two. "
                "Write Fork(join, branch, branch, ...), with () for an operand that is not matched."
            )
        object.__setattr__(self, "join", join)
        object.__setattr__(self, "branches", branches)
        object.__setattr__(self, "any_order", any_order)


@dataclass(frozen=True)
class CompiledWildcard:
    """A wildcard with its elements read."""

    element: Element
    max_count: int | None


@dataclass(frozen=True)
class CompiledFork:
    """A fork with its join and branches read."""

    join: Element
    branches: tuple["CompiledTree", ...]
    any_order: bool = False


@dataclass(frozen=True)
class CompiledTree:
    """A tree whose elements have been read and checked."""

    elements: tuple[Element | CompiledWildcard | CompiledFork, ...]
    length: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", len(self.elements))

    def ends(self) -> list[Element]:
        """The elements that the last node of a match may be: wildcards at the end may be empty."""
        ends: list[Element] = []
        for element in reversed(self.elements):
            if not isinstance(element, CompiledWildcard):
                return [*ends, element.join if isinstance(element, CompiledFork) else element]
            ends.append(element.element)
        return ends

    def most_nodes(self) -> float:
        """How many nodes a match takes at most; infinite with a wildcard without limit."""
        total = 0.0
        for element in self.elements:
            if isinstance(element, CompiledWildcard):
                total += math.inf if element.max_count is None else element.max_count
            elif isinstance(element, CompiledFork):
                total += 1 + sum(branch.most_nodes() for branch in element.branches)
            else:
                total += 1
        return total

    def graft_arguments(self) -> int | None:
        """How many arguments a graft is given; ``None`` when that depends on what is matched."""
        total = 0
        for element in self.elements:
            if isinstance(element, CompiledWildcard):
                total += 1
                continue
            if isinstance(element, CompiledFork):
                counts = [branch.graft_arguments() for branch in element.branches]
                if None in counts:
                    return None
                total += sum(count for count in counts if count is not None) + element.any_order
                element = element.join
            if element.modules is None:
                return None
            total += element.modules
        return total


def compile_tree(tree: Any, where: str) -> CompiledTree:
    """Read a tree.

    Args:
        tree: A tuple of elements, wildcards and, in first place, possibly a fork.
        where: The pattern's name, for messages.

    Raises:
        PatternError: The tree is not a tuple, is empty, or holds something else.
    """
    if not isinstance(tree, (tuple, list)) or not tree:
        raise PatternError(
            f"{where}: tree is {tree!r}. Expected a tuple of elements in data-flow order, for example "
            "tree = (nn.Conv2d, nn.ReLU); a single element is written (nn.Linear,)."
        )
    compiled = tuple(_compile_position(element, index, where) for index, element in enumerate(tree))
    if all(isinstance(element, CompiledWildcard) for element in compiled):
        raise PatternError(f"{where}: the tree holds only wildcards and would match nothing. Add an element.")
    return CompiledTree(compiled)


def _compile_position(element: Any, index: int, where: str) -> Element | CompiledWildcard | CompiledFork:
    if isinstance(element, Wildcard):
        return CompiledWildcard(compile_element(element.elements, where), element.max_count)
    if isinstance(element, Fork):
        if index > 0:
            raise PatternError(
                f"{where}: a Fork is at position {index} of a trunk. What comes before it belongs in one of its "
                "branches; put the Fork first."
            )
        branches = tuple(
            CompiledTree(()) if not branch else compile_tree(branch, f"{where} (branch)") for branch in element.branches
        )
        return CompiledFork(compile_element(element.join, where), branches, element.any_order)
    return compile_element(element, where)
