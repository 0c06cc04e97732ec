"""Records what rewrites may change, to undo them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import fx, nn

from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.graph.lookup import get_constant, get_module
from embedl_deploy.verify.memory import CopiedBeforeWrites
from embedl_deploy.verify.state import State


class Before:
    """A graph module before rewrites: its graph and module tree, and all that its modules refer to.

    Args:
        graph_module: The graph module.
        checkpoint: Its graph and module tree, if they were noted already.
        state: What its modules refer to, likewise.
    """

    def __init__(
        self, graph_module: fx.GraphModule, checkpoint: Checkpoint | None = None, state: State | None = None
    ) -> None:
        self._graph_module = graph_module
        self._checkpoint = Checkpoint(graph_module) if checkpoint is None else checkpoint
        self._state = State(graph_module, random_numbers=False) if state is None else state

    def noting_writes(self) -> CopiedBeforeWrites:
        """Within the block, which rewrites have to run in, parameters are copied before they are written to."""
        return CopiedBeforeWrites(self._state.parameters)

    def restore(self) -> dict[fx.Node, fx.Node]:
        """Bring the graph module back to that state; may be called more than once.

        Returns:
            For every node that was in the graph then, the node that takes its place now.
        """
        self._state.put_back()
        return self._checkpoint.restore()

    def restored(self) -> "Before":
        """The same state, of the graph that :meth:`restore` has made; that of the modules is not noted again."""
        return Before(self._graph_module, state=self._state)


@contextmanager
def put_back_on_failure(nodes: Sequence[fx.Node]) -> Iterator[None]:
    """If the block raises, what it did to the modules and tensors that some nodes call or read is undone."""
    holder = nn.Module()
    modules = [get_module(node) for node in nodes if node.op == "call_module"]
    read = [get_constant(value) for node in nodes for value in node.all_input_nodes if value.op == "get_attr"]
    vars(holder)["parts"] = [*modules, *read]
    state = State(holder, random_numbers=False)
    try:
        with CopiedBeforeWrites(state.parameters):
            yield
    except BaseException:
        state.put_back()
        raise
