"""The transformed graph as blocks in blocks, by the paths of its modules, in the order in which it runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from embedl_deploy.page.model_reports import GraphNode

#: The name of a block of functions, and how many make one.
_FUNCTIONS, _MANY = "functions", 4


@dataclass
class Block:
    """Neighbours in the graph whose paths begin alike.

    Attributes:
        path: What they begin with.
        name: What the block is called.
        members: Blocks and nodes in it, in order.
        is_open: Whether it is shown with its members, to begin with.
    """

    path: str
    name: str
    members: list["Block | GraphNode"] = field(default_factory=list)
    is_open: bool = False

    def nodes(self) -> Iterator[GraphNode]:
        """All nodes in it, in order."""
        for member in self.members:
            if isinstance(member, Block):
                yield from member.nodes()
            else:
                yield member


def path_of(node: GraphNode) -> str:
    """Where a node is shown: a function, as its name in the module whose forward calls it."""
    if node.op == "call_module":
        return node.module
    return f"{node.module}.{node.node}" if node.module else node.node


def blocks_of(graph: Sequence[GraphNode], most: int = 40) -> Block:
    """Put the nodes of a graph into blocks.

    A module that is called at two places that are apart has two blocks: the order of the graph is kept.

    Args:
        graph: The nodes, in order.
        most: As many lines may be shown to begin with; blocks are opened from the outside in until there are more.
    """
    whole = Block("", "", _grouped([(path_of(node).split("."), node) for node in graph], 0), is_open=True)
    level, shown = [whole], len(whole.members)
    while level:
        inner = [
            member
            for block in level
            for member in block.members
            if isinstance(member, Block) and member.name != _FUNCTIONS
        ]
        shown += sum(len(block.members) for block in inner)
        if shown > most:
            break
        for block in inner:
            block.is_open = True
        level = inner
    return whole


def _grouped(nodes: Sequence[tuple[list[str], GraphNode]], depth: int) -> list[Block | GraphNode]:
    """Nodes whose paths agree up to a depth, grouped by what comes next."""
    found: list[Block | GraphNode] = []
    for prefix, run in groupby(nodes, key=lambda item: item[0][: depth + 1]):
        members = list(run)
        if any(len(path) > depth + 1 for path, _ in members) and len(members) > 1:
            inside = _grouped(members, depth + 1)
            only = inside[0]
            # A block around nothing but a block is that block.
            is_chain = len(inside) == 1 and isinstance(only, Block) and only.name != _FUNCTIONS
            found.append(only if is_chain else Block(".".join(prefix), ".".join(prefix), inside))
        else:
            found += [node for _, node in members]
    return _with_functions_folded(found, ".".join(nodes[0][0][:depth]) if nodes else "")


def _with_functions_folded(members: Sequence[Block | GraphNode], path: str) -> list[Block | GraphNode]:
    """Runs of functions that no module took, such as those that make a mask, as one block each."""
    found: list[Block | GraphNode] = []
    for is_function, run in groupby(members, key=_is_function):
        same = list(run)
        found += [Block(path, _FUNCTIONS, same)] if is_function and len(same) >= _MANY else same
    return found


def _is_function(member: Block | GraphNode) -> bool:
    return isinstance(member, GraphNode) and member.op in ("call_function", "call_method")
