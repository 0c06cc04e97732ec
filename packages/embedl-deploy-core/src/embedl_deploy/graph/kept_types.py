"""``x += y`` keeps the type of ``x``, and ``x + y`` takes the wider one: where the two are not the same.

What is written in place can be computed as a new value only if both are of one type. Types are known if shapes were
propagated. That is of today: what the model's code converts, or makes in a type of its own, keeps that type when the
model is converted to float16. So what is written is followed back to where it comes from as well.
"""

from collections.abc import Iterator

import torch
from torch import fx

from embedl_deploy.graph.casts import is_cast
from embedl_deploy.graph.kinds import ONE_TENSOR
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.metadata import dtype_of
from embedl_deploy.graph.operators import is_in_place, operation

#: Operations that make numbers in a type that no tensor says.
_MAKING = frozenset({"arange", "linspace", "logspace", "zeros", "ones", "full", "eye", "tensor", "rand", "randn"})
#: The type of the first operand, whatever the others are of.
_LIKE_THE_FIRST = frozenset({"pad", "index", "getitem", "gather", "masked_fill", "view", "expand", "reshape"})


def why_not_a_new_value(node: fx.Node) -> str | None:
    """Why a call that writes to its first operand, such as ``x += y``, does something else than ``x + y``.

    Args:
        node: Any node.

    Returns:
        The reason; ``None`` if it does not, or does not write.
    """
    if not is_in_place(node) or len(node.all_input_nodes) < 2 or node.args[0] is not node.all_input_nodes[0]:
        return None
    written, *others = node.all_input_nodes
    own = dtype_of(written)
    for other in others:
        kind = dtype_of(other)
        if own is not None and kind is not None and torch.promote_types(own, kind) is not own:
            return f"{node.name} puts {kind} into {own} in place, which keeps the type of the first"
        maker = None if written is other else _of_its_own_type(other)
        if maker is not None:
            return (
                f"{node.name} keeps the type of {written.name} in place, and {maker.name} may be of another type when "
                "the model is converted"
            )
    return None


def _of_its_own_type(value: fx.Node) -> fx.Node | None:
    """What makes a value in a type that need not be that of the model; ``None`` if nothing does."""
    seen: set[fx.Node] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop()
        kind = dtype_of(node)
        if node in seen or not (kind is None or kind.is_floating_point or kind.is_complex):
            continue  # whole numbers widen no type in floating point
        seen.add(node)
        if _says_its_type(node):
            return node
        waiting += _of_whose_type(node)
    return None


def _says_its_type(node: fx.Node) -> bool:
    """Whether a call gives a type that none of its operands has to be of: one that is written down, or the default."""
    if node.op not in ("call_function", "call_method"):
        return False
    name = operation(node)
    literal = any(isinstance(value, torch.dtype) for value in (*node.args, *node.kwargs.values()))
    asked = node.kwargs.get("dtype")
    if literal or is_cast(node):
        wide = literal or not any(isinstance(value, fx.Node) for value in (*node.args[1:], *node.kwargs.values()))
        return wide and not _is_move(node)
    if name == "arange" and not any(isinstance(value, float) for value in node.args):
        return False
    return name in _MAKING and not isinstance(asked, fx.Node)


def _is_move(node: fx.Node) -> bool:
    """Whether ``x.to(...)`` names a device alone."""
    values = (*node.args[1:], *node.kwargs.values())
    return (
        operation(node) == "to"
        and bool(values)
        and all(isinstance(value, (str, torch.device, bool)) for value in values)
    )


def _of_whose_type(node: fx.Node) -> Iterator[fx.Node]:
    """The operands whose types a value's type comes from; none where it is the model's."""
    if node.op == "call_module":
        module = get_module(node)
        if not isinstance(module, ONE_TENSOR) or next(module.parameters(), None) is None:
            yield from node.all_input_nodes
    elif is_cast(node) and not _is_move(node):
        yield from node.all_input_nodes[1:]
    elif is_cast(node) or operation(node) in _LIKE_THE_FIRST or is_in_place(node):
        yield from node.all_input_nodes[:1]
    else:
        yield from node.all_input_nodes
