"""Functions that a graph calls as in training, whatever mode it is in.

A module follows ``train()`` and ``eval()``. A function is told by its argument ``training``, which a graph holds as the
value that it had at capture: ``F.dropout(x, training=self.training)`` of a model in training mode drops for good.
"""

from torch import fx

from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.signatures import bind_call

#: Names of the argument: of functions, of operators.
_FLAGS = ("training", "train")
#: What they are called with alters nothing where a recurrent layer has no dropout of its own.
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_NAMED = 3


def note_always_training(graph: fx.Graph) -> str | None:
    """What to tell about functions of a graph that run as in training for good; ``None`` if there are none."""
    names = [node.name for node in graph.nodes if _is_in_training(node)]
    if not names:
        return None
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"{', '.join(map(repr, names[:_NAMED]))}{more}: called with training=True, which the graph holds: it stays so "
        "after eval(). Transform the model in evaluation mode, or use a module such as nn.Dropout, which follows the "
        "mode."
    )


def _is_in_training(node: fx.Node) -> bool:
    if node.op != "call_function" or operation(node) in _RECURRENT:
        return False
    bound = bind_call(node)
    return bound is not None and any(bound.values.get(flag) is True for flag in _FLAGS)
