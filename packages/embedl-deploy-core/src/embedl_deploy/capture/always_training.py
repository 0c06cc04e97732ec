"""Notes functions that a graph calls in training mode, whatever its own mode is.

A module follows ``train()`` and ``eval()``. A function is told by its argument ``training``, which a graph holds as the
value that it had at capture: ``F.dropout(x, training=self.training)`` of a model in training mode drops for good. A
batch norm by the statistics of what it is given, as weight standardization is written, is not a such function.
"""

from torch import fx

from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.signatures import bind_call

#: Names of the argument: of functions, of operators.
_FLAGS = ("training", "train")
#: What they are called with alters nothing where a recurrent layer has no dropout of its own.
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_BATCH_NORMS = frozenset({"batch_norm", "_native_batch_norm_legit"})
_NAMED = 3


def note_always_training(graph: fx.Graph, *, training: bool) -> str | None:
    """What to tell about functions of a graph that run as in training for good; ``None`` if there are none.

    Args:
        graph: A captured graph.
        training: Whether the model, or a part of it, was in training mode; in evaluation mode the code itself says so.
    """
    names = [node.name for node in graph.nodes if _is_in_training(node)]
    if not names:
        return None
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    told = f"{', '.join(map(repr, names[:_NAMED]))}{more}: called with training=True"
    if not training:
        return (
            f"{told}, though the model is in evaluation mode: its code asks for it. What they compute, such as a "
            "dropout's random numbers, stays so in the graph and in files. If that is not meant, call them with "
            "training=self.training."
        )
    return (
        f"{told}, which the graph holds: it stays so after eval(). Transform the model in evaluation mode, or use a "
        "module such as nn.Dropout, which follows the mode."
    )


def _is_in_training(node: fx.Node) -> bool:
    if node.op != "call_function" or operation(node) in _RECURRENT:
        return False
    bound = bind_call(node)
    if bound is None or not any(bound.values.get(flag) is True for flag in _FLAGS):
        return False
    # A batch norm without running statistics is a function of its input alone, which can be called in no other way.
    return operation(node) not in _BATCH_NORMS or bound.values.get("running_mean") is not None
