"""What operations that move, merge, cut and join axes leave of sizes that are the same in every call."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import VIEWS, operation
from embedl_deploy.graph.signatures import bind_call

#: For each axis of a value, whether its size is fixed.
Fixed = tuple[bool, ...]


class KnownSizes:
    """Sizes that are the same in every call, of the values that have been read.

    Attributes:
        fixed: Of tensors, for each axis.
        numbers: Numbers that are the same in every call, computed from fixed sizes.
    """

    def __init__(self) -> None:
        self.fixed: dict[fx.Node, Fixed] = {}
        self.numbers: set[fx.Node] = set()

    def of(self, value: Any) -> Fixed:
        """Of a value; nothing if it is none, or has not been read."""
        return self.fixed.get(value, ()) if isinstance(value, fx.Node) else ()

    def is_known(self, size: Any) -> bool:
        """Whether a size that is given to a view is the same in every call."""
        return size in self.numbers if isinstance(size, fx.Node) else isinstance(size, int) and size >= 0

    def broadcast(self, inputs: Sequence[fx.Node], rank: int) -> Fixed:
        """Sizes of what is computed element by element: one above one that is fixed is that of the result."""

        def is_fixed(axis: int) -> bool:
            found = [(shape_of(each) or ())[axis] for each in inputs if len(self.of(each)) >= -axis]
            known = [self.of(each)[axis] for each in inputs if len(self.of(each)) >= -axis]
            return all(known) or any(one and size != 1 for one, size in zip(known, found, strict=True))

        return tuple(is_fixed(axis) for axis in range(-rank, 0))


def _moved(known: KnownSizes, node: fx.Node, rank: int) -> Fixed:
    """Axes in another order."""
    fixed, order = known.of(node.args[0]), list(range(rank))
    given = [] if node.target is getattr else _flat(node.args[1:])
    if node.kwargs or len(fixed) != rank or not all(isinstance(axis, int) for axis in given):
        return ()
    if operation(node) == "permute":
        order = [axis % rank for axis in given]
    else:
        first, second = given or (-2, -1)
        order[first], order[second] = order[second], order[first]
    return tuple(fixed[axis] for axis in order)


def _seen_as(known: KnownSizes, node: fx.Node, rank: int) -> Fixed:
    """A view, an expansion: a size that is written down."""
    sizes, before = _flat(node.args[1:]), known.of(node.args[0])
    if node.kwargs or len(sizes) != rank:
        return ()
    keeps = operation(node) == "expand"
    lead = rank - len(before)
    return tuple(
        known.is_known(size) or (keeps and isinstance(size, int) and size == -1 and at >= lead and before[at - lead])
        for at, size in enumerate(sizes)
    )


def _unsqueezed(known: KnownSizes, node: fx.Node, rank: int) -> Fixed:
    axis, fixed = _flat(node.args[1:] or tuple(node.kwargs.values())), list(known.of(node.args[0]))
    if len(axis) != 1 or not isinstance(axis[0], int):
        return ()
    fixed.insert(axis[0] % rank, True)
    return tuple(fixed)


def _flattened(known: KnownSizes, node: fx.Node, _rank: int) -> Fixed:
    bound, before = bind_call(node), known.of(node.args[0])
    values = {} if bound is None else bound.values
    start, end = values.get("start_dim"), values.get("end_dim")
    if not isinstance(start, int) or not isinstance(end, int):
        return ()
    return merged(before, start, end)


def _item(known: KnownSizes, node: fx.Node, _rank: int) -> Fixed:
    """A part of a tensor, or one of those that it was cut into."""
    source, index = node.args
    if isinstance(source, fx.Node) and operation(source) in ("chunk", "split", "split_with_sizes"):
        return known.of(source.args[0])
    parts = list(index) if isinstance(index, tuple) else [index]
    fixed = list(known.of(source))
    if any(isinstance(part, (fx.Node, list, torch.Tensor, bool)) for part in parts):
        return ()
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    if taken > len(fixed):  # of several values, such as the state of a recurrent layer
        return ()
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(fixed) - taken)
    found: list[bool] = []
    for part in parts:
        if part is None:
            found.append(True)
            continue
        before = fixed.pop(0)
        if isinstance(part, slice):
            found.append(_is_one(part) or (before and not _nodes_in(part)))
    return (*found, *fixed)


def _joined(known: KnownSizes, node: fx.Node, rank: int) -> Fixed:
    bound = bind_call(node)
    values = {} if bound is None else bound.values
    tensors, dim = values.get("tensors"), values.get("dim")
    if not isinstance(tensors, (list, tuple)) or not isinstance(dim, int):
        return ()
    flags = [known.of(each) for each in tensors]
    if any(len(each) != rank for each in flags):
        return ()
    axes = zip(*flags, strict=True)
    return tuple(all(each) if axis == dim % rank else any(each) for axis, each in enumerate(axes))


def _product(known: KnownSizes, node: fx.Node, rank: int) -> Fixed:
    pair = node.args[:2]
    flags = [known.of(each) for each in pair]
    if node.kwargs or len(pair) != 2 or any(len(each) < 2 for each in flags):
        return ()
    both = known.broadcast([each for each in pair if isinstance(each, fx.Node)], rank)
    return (*both[:-2], flags[0][-2], flags[1][-1])


def merged(before: Fixed, start: int, end: int) -> Fixed:
    """Axes from ``start`` to ``end``, that one included, as one."""
    if not before:
        return ()
    start, end = start % len(before), end % len(before)
    return (*before[:start], all(before[start : end + 1]), *before[end + 1 :])


def _flat(values: Sequence[Any]) -> list[Any]:
    return [each for value in values for each in (value if isinstance(value, (list, tuple)) else [value])]


def _is_one(part: slice) -> bool:
    """Whether a slice takes one place, whatever it is taken of."""
    start, stop = part.start or 0, part.stop
    return isinstance(start, int) and isinstance(stop, int) and stop - start == 1 and start >= 0


def _nodes_in(part: slice) -> bool:
    return any(isinstance(each, fx.Node) for each in (part.start, part.stop, part.step))


#: By operation: what it leaves, of the sizes that are known, a node and the rank of its value.
RULES: dict[str, Callable[[KnownSizes, fx.Node, int], Fixed]] = {
    **dict.fromkeys(("permute", "transpose", "t", "mT"), _moved),
    **dict.fromkeys((*VIEWS, "expand"), _seen_as),
    "unsqueeze": _unsqueezed,
    "flatten": _flattened,
    "getitem": _item,
    "cat": _joined,
    **dict.fromkeys(("matmul", "bmm"), _product),
}
