"""An index of a graph's calls by target, so that a pattern only looks at nodes that it could match."""

from collections.abc import Iterable, Iterator

from torch import fx, nn

from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.memo import remembered


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


def call_index(graph: fx.Graph) -> CallIndex:
    """The index of a graph as it stands."""
    return remembered(CallIndex, graph)
