"""How often a graph calls each module and reads each parameter, counted once for many rewrites."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import fx
from torch.utils import _pytree as pytree


def times_read(node: fx.Node) -> int:
    """How often the value of a node is an argument: of ``x + x`` twice, though it has one user."""
    arguments = (value for user in node.users for value in pytree.tree_leaves((user.args, user.kwargs)))
    return sum(value is node for value in arguments)


class TargetUses:
    """Uses of module and attribute paths in one graph, as counted when first asked, or asked again after a reset.

    Rewrites that go through the functions of the pattern room note the calls that they insert, and only ever take
    other uses away, so an old count is never too low. A rewrite that edits the graph by itself makes a reset necessary.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self._counts: Counter[str] | None = None

    def count(self, path: str) -> int:
        """How many nodes name this very path."""
        if self._counts is None:
            nodes = (node for node in self.graph.nodes if node.op in ("call_module", "get_attr"))
            self._counts = Counter(str(node.target) for node in nodes)
        return self._counts[path]

    def note(self, path: str) -> None:
        """Count a node that was inserted."""
        if self._counts is not None:
            self._counts[path] += 1

    def reset(self) -> None:
        """Count again when next asked."""
        self._counts = None


_current: ContextVar[TargetUses | None] = ContextVar("target_uses", default=None)


def target_uses(graph: fx.Graph) -> TargetUses:
    """The counts of a graph: those given by :func:`uses_known`, or fresh ones."""
    known = _current.get()
    return known if known is not None and known.graph is graph else TargetUses(graph)


@contextmanager
def uses_known(uses: TargetUses) -> Iterator[None]:
    """Let the rewrites made within the block go by these counts."""
    token = _current.set(uses)
    try:
        yield
    finally:
        _current.reset(token)
