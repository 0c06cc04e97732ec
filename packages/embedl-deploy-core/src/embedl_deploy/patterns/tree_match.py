"""The result of matching a tree: which node fits which element."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import fx

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.arguments import positional_arguments, tensor_inputs
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class WildcardMatch:
    """The nodes that a wildcard matched, in order; may be empty."""

    nodes: tuple[fx.Node, ...]


@checked
@dataclass(frozen=True)
class ForkMatch:
    """The joining node of a fork, and what was matched in each branch.

    Attributes:
        node: The joining node.
        branches: One match per branch, in the order of the tree.
        operands: For each branch, which of the node's operands it explains.
    """

    node: fx.Node
    branches: tuple["TreeMatch", ...]
    operands: tuple[int, ...]


Placement = fx.Node | WildcardMatch | ForkMatch


@checked
@dataclass(frozen=True)
class TreeMatch:
    """A matched tree: one placement for each element of the trunk."""

    placements: tuple[Placement, ...]

    @checked
    def get_node(self, index: int) -> Any:
        """What element ``index`` of the trunk matched: a node, or for a wildcard an object with ``.nodes``.

        For a fork it is the joining node; :meth:`branches` gives the rest.

        Raises:
            PatternError: The trunk has no such element.
        """
        placement = self._placement(index)
        return placement.node if isinstance(placement, ForkMatch) else placement

    @checked
    def branches(self, index: int = 0) -> tuple["TreeMatch", ...]:
        """The matches of the branches of the fork at ``index``.

        Raises:
            PatternError: There is no fork at that position.
        """
        placement = self._placement(index)
        if not isinstance(placement, ForkMatch):
            raise PatternError(f"Position {index} of the match is not a Fork but {placement!r}.")
        return placement.branches

    def _placement(self, index: int) -> fx.Node | WildcardMatch | ForkMatch:
        if not -len(self.placements) <= index < len(self.placements):
            raise PatternError(f"index is {index}, but the trunk of the match has {len(self.placements)} element(s).")
        return self.placements[index]

    @cached_property
    def nodes(self) -> list[fx.Node]:
        """All matched nodes, nested branches first, each once."""
        return list(dict.fromkeys(self._walk()))

    def _walk(self) -> Iterator[fx.Node]:
        for placement in self.placements:
            if isinstance(placement, WildcardMatch):
                yield from placement.nodes
            elif isinstance(placement, ForkMatch):
                for branch in placement.branches:
                    yield from branch._walk()
                yield placement.node
            else:
                yield placement

    @property
    def last(self) -> fx.Node:
        """The node whose value is the value of the whole match."""
        return self.nodes[-1]

    def inputs(self) -> list[fx.Node]:
        """The values that flow in from outside, branches first, in the order of the tree.

        Read from the graph at the time of the call, so rewrites made in the meantime are seen.
        """
        inside = set(self.nodes)
        return list(self._inputs(inside))

    def call_arguments(self) -> list[Any]:
        """What a module that takes the match's place is called with, by position.

        A match of one module call passes on all arguments of that call, constants and ``None`` included; any other
        match passes its :meth:`inputs`.
        """
        nodes = self.nodes
        if len(nodes) == 1 and nodes[0].op == "call_module":
            return positional_arguments(nodes[0])
        return self.inputs()

    def _inputs(self, inside: set[fx.Node]) -> Iterator[fx.Node]:
        for placement in self.placements:
            if isinstance(placement, ForkMatch):
                operands = tensor_inputs(placement.node)
                for branch, operand in zip(placement.branches, placement.operands, strict=True):
                    if any(True for _ in branch._walk()):
                        yield from branch._inputs(inside)
                    else:
                        yield operands[operand]
                continue
            nodes = placement.nodes if isinstance(placement, WildcardMatch) else (placement,)
            for node in nodes:
                yield from (value for value in tensor_inputs(node) if value not in inside)

    def serialize(self) -> list[Any]:
        """The match as nested lists of node names: a string, a list (wildcard) or ``{"join", "branches"}``."""
        plain: list[Any] = []
        for placement in self.placements:
            if isinstance(placement, WildcardMatch):
                plain.append([node.name for node in placement.nodes])
            elif isinstance(placement, ForkMatch):
                branches = [branch.serialize() for branch in placement.branches]
                plain.append({"join": placement.node.name, "branches": branches})
            else:
                plain.append(placement.name)
        return plain

    @checked
    def moved(self, to: dict[fx.Node, fx.Node]) -> "TreeMatch":
        """The same match over other node objects; nodes that ``to`` does not name stay."""
        placements: list[Placement] = []
        for placement in self.placements:
            if isinstance(placement, WildcardMatch):
                placements.append(WildcardMatch(tuple(to.get(node, node) for node in placement.nodes)))
            elif isinstance(placement, ForkMatch):
                branches = tuple(branch.moved(to) for branch in placement.branches)
                placements.append(ForkMatch(to.get(placement.node, placement.node), branches, placement.operands))
            else:
                placements.append(to.get(placement, placement))
        return TreeMatch(tuple(placements))
