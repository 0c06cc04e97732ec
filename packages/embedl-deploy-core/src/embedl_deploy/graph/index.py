"""The calls of a graph by what they call, so that a pattern looks only at nodes that it could want."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import fx, nn

from embedl_deploy.graph.lookup import get_module, modules_remembered


class CallIndex:
    """The call nodes of one graph, as it stands.

    Attributes:
        calls: All of them, in graph order.
        functional: Those that call a function or method, in graph order.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.calls: list[fx.Node] = []
        self.functional: list[fx.Node] = []
        self._by_type: dict[type[nn.Module], list[fx.Node]] = {}
        for node in graph.nodes:
            if node.op == "call_module":
                self._by_type.setdefault(type(get_module(node)), []).append(node)  # type: ignore[arg-type]
            elif node.op in ("call_function", "call_method"):
                self.functional.append(node)
            else:
                continue
            self.calls.append(node)
        self._position = {node: position for position, node in enumerate(self.calls)}

    def calling(self, classes: tuple[type[nn.Module], ...]) -> Iterator[fx.Node]:
        """The nodes that call a module of one of these classes or of a subclass."""
        for module_class, nodes in self._by_type.items():
            if issubclass(module_class, classes):
                yield from nodes

    def in_order(self, nodes: Iterable[fx.Node]) -> list[fx.Node]:
        """These nodes, each once, in graph order."""
        return sorted(set(nodes), key=self._position.__getitem__)


_known: ContextVar[dict[fx.Graph, CallIndex] | None] = ContextVar("known_indices", default=None)


def call_index(graph: fx.Graph) -> CallIndex:
    """The index of a graph; within :func:`graph_unchanged` made once."""
    known = _known.get()
    if known is None:
        return CallIndex(graph)
    if graph not in known:
        known[graph] = CallIndex(graph)
    return known[graph]


@contextmanager
def graph_unchanged() -> Iterator[None]:
    """Within the block no graph is changed, so what was looked up once need not be looked up again."""
    token = _known.set({})
    try:
        with modules_remembered():
            yield
    finally:
        _known.reset(token)
