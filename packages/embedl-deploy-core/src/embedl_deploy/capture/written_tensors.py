"""Detects tensors that the graph writes to and tracing has read, which would become wrong constants.

``self.b[:2] = x`` is a node of the graph if ``x`` is traced, and so is ``y + self.b`` after it. But ``self.b.sum(0)``
is computed there and then, without the write. And a tensor that forward makes itself, ``t = torch.zeros(3)``, is one
constant: what one call writes to it, the next call would find.
"""

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from embedl_deploy.graph.effects import written_values
from embedl_deploy.graph.lookup import get_constant
from embedl_deploy.graph.operators import is_in_place, operation
from embedl_deploy.verify.memory import place_of
from embedl_deploy.verify.state import State

#: Operations whose result lies in the memory of their first operand, or does at times.
_VIEWS = frozenset(
    [
        *("getitem", "__getitem__", "view", "view_as", "reshape", "select", "narrow", "transpose", "permute"),
        *("flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "detach", "diagonal", "unfold"),
        *("movedim", "t", "chunk", "split", "tensor_split", "unbind", "swapaxes", "contiguous", "as_strided"),
    ]
)
#: Operations that ask a tensor for its size and type.
_OF_NO_VALUES = ("empty", "zeros", "ones", "full", "new_", "sym_")


class WrittenTensors:
    """The tensors that a model has before it is traced, and which of them tracing computes with.

    Args:
        before: The state of the copy that is traced.
    """

    def __init__(self, before: State) -> None:
        self._before = before
        self._read: set[int] = set()

    def note_read(self, func: OpOverload, operands: Any) -> None:
        """Note what an operation reads that is carried out while tracing."""
        if not func.is_view and not func.__name__.startswith(_OF_NO_VALUES) and "_like" not in func.__name__:
            self._read.update(place_of(t) for t in pytree.tree_leaves(operands) if isinstance(t, torch.Tensor))

    def fault(self, graph_module: fx.GraphModule) -> tuple[str, str] | None:
        """The first tensor that the graph writes to and that is not what it would be in the next call.

        Returns:
            What forward does to it, as the rest of a sentence, and its path; ``None`` if there is none.
        """
        constants = {
            str(node.target): get_constant(node)
            for node in graph_module.graph.find_nodes(op="get_attr")
            if isinstance(get_constant(node), torch.Tensor)
        }
        for node in graph_module.graph.nodes:
            for target in attributes_written_by(node):
                if target in constants:
                    reason = self._reason(target, constants)
                    if reason is not None:
                        return reason
        return None

    def _reason(self, target: str, constants: dict[str, torch.Tensor]) -> tuple[str, str] | None:
        place, name = place_of(constants[target]), self._before.owner(constants[target])
        if name is None:
            return "writes traced values into a tensor that it makes itself, which a graph has only once", ""
        if place in self._read or not self._before.has(constants[target]):
            return f"writes traced values into {name!r} and computes with it", name
        if any(place_of(other) == place and not self._before.has(other) for other in constants.values()):
            return f"writes traced values into {name!r} and reads a part of it", name
        return None


def attributes_written_by(node: fx.Node) -> list[str]:
    """The attributes into whose memory a node writes, as far as that is sure."""
    return [target for target in map(_attribute, written_values(node)) if target is not None]


def _attribute(node: fx.Node) -> str | None:
    """The attribute in whose memory a value lies, as far as that is sure."""
    while operation(node) in _VIEWS or node.target is getattr or is_in_place(node):
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node):
            return None
        node = first
    return str(node.target) if node.op == "get_attr" else None
