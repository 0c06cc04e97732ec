"""Which sizes of a value are the same in every call, and which the example inputs happened to have.

A tensor of the model has its sizes for good; what flows in has not: the length of a sequence, a batch. A layer with a
weight fixes the sizes that its weight has, and what keeps an axis behind it keeps its size. Where ``torch.export`` has
noted sizes, those count. A size that nothing fixes for certain counts as one that may change.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.casts import CASTS
from embedl_deploy.graph.forms.activations import ACTIVATIONS
from embedl_deploy.graph.kinds import POOLS
from embedl_deploy.graph.lookup import get_module, owner
from embedl_deploy.graph.memo import remembered
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.open_dimensions import open_dimensions_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.signatures import bind_call

#: For each axis of a value, whether its size is fixed.
_Fixed = tuple[bool, ...]

_ELEMENTWISE = CASTS | frozenset(
    {"add", "sub", "rsub", "mul", "div", "pow", "square", "sqrt", "rsqrt", "reciprocal", "neg", "abs", "exp", "log"}
    | {"sin", "cos", "clamp", "maximum", "minimum", "where", "masked_fill"}
    | {"dropout", "contiguous", "clone", "detach", "addcmul"}
    | {operation for activation in ACTIVATIONS if activation.keeps_shape for operation in activation.operations}
)
_REDUCING = frozenset({"mean", "sum", "amax", "amin", "var", "std", "norm", "prod"})
_ARITHMETIC = frozenset({"add", "sub", "mul", "floordiv", "int"})
_KEEPING = (
    *(activation.module_class for activation in ACTIVATIONS if activation.keeps_shape),
    *POOLS,
    nn.Dropout,
    nn.Identity,
)


def size_is_fixed(node: fx.Node, axis: int) -> bool:
    """Whether an axis of a value, counted from the last, is of the same size in every call of the model."""
    fixed = remembered(_Sizes, node.graph).fixed.get(node, ())
    return -len(fixed) <= axis < 0 and fixed[axis]


def is_left_open(node: fx.Node, axis: int) -> bool:
    """Whether the user left open more than first dimensions, and nothing fixes this axis, counted from the last."""
    opened = open_dimensions_of(owner(node))
    asked = opened is not None and any(at > 0 for each in opened.by_input.values() for value in each for at in value)
    return asked and not size_is_fixed(node, axis)


class _Sizes:
    """The fixed sizes of every value of a graph, as it stands.

    Attributes:
        fixed: Of tensors, for each axis.
        numbers: Numbers that are the same in every call, computed from fixed sizes.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.fixed: dict[fx.Node, _Fixed] = {}
        self.numbers: set[fx.Node] = set()
        for node in graph.nodes:
            shape = shape_of(node)
            if shape is None:
                if self._is_number(node):
                    self.numbers.add(node)
                continue
            found = self._read(node, len(shape))
            self.fixed[node] = found if len(found) == len(shape) else (False,) * len(shape)

    def _read(self, node: fx.Node, rank: int) -> _Fixed:
        exported = node.meta.get("val")
        if isinstance(exported, torch.Tensor):
            return tuple(isinstance(size, int) for size in exported.shape)
        if node.op == "get_attr":
            return (True,) * rank
        name = operation(node)
        reader = _READERS.get(name) if isinstance(name, str) else None
        if reader is not None:
            return reader(self, node, rank)
        module = get_module(node)
        if module is not None:
            return self._of_layer(module, node, rank)
        if node.target is getattr and node.args[1] == "mT":
            return self._moved(node, rank)
        if not isinstance(name, str):
            return ()
        if name in _ELEMENTWISE:
            return self._broadcast(node.all_input_nodes, rank)
        return self._reduced(node) if name in _REDUCING else ()

    def _of(self, value: Any) -> _Fixed:
        return self.fixed.get(value, ()) if isinstance(value, fx.Node) else ()

    def _is_known(self, size: Any) -> bool:
        """Whether a size that is given to a view is the same in every call."""
        return size in self.numbers if isinstance(size, fx.Node) else isinstance(size, int) and size >= 0

    def _is_number(self, node: fx.Node) -> bool:
        """Whether a node is a fixed size of a tensor, or computed from such."""
        name = operation(node)
        if name == "getitem" and isinstance(node.args[0], fx.Node) and isinstance(node.args[1], int):
            sizes, axis = node.args[0], node.args[1]
            is_shape = operation(sizes) == "size" or (sizes.target is getattr and sizes.args[1] == "shape")
            return is_shape and self._has(sizes.args[0], axis)
        if name == "size" and len(node.args) == 2:
            return self._has(node.args[0], node.args[1])
        known = isinstance(name, str) and name in _ARITHMETIC and bool(node.all_input_nodes)
        return known and self.numbers.issuperset(node.all_input_nodes)

    def _has(self, value: Any, axis: Any) -> bool:
        fixed = self._of(value)
        return isinstance(axis, int) and -len(fixed) <= axis < len(fixed) and fixed[axis]

    def _broadcast(self, inputs: Sequence[fx.Node], rank: int) -> _Fixed:
        """Sizes of what is computed element by element: one above one that is fixed is that of the result."""

        def is_fixed(axis: int) -> bool:
            found = [(shape_of(each) or ())[axis] for each in inputs if len(self._of(each)) >= -axis]
            known = [self._of(each)[axis] for each in inputs if len(self._of(each)) >= -axis]
            return all(known) or any(one and size != 1 for one, size in zip(known, found, strict=True))

        return tuple(is_fixed(axis) for axis in range(-rank, 0))

    def _of_layer(self, module: nn.Module, node: fx.Node, rank: int) -> _Fixed:
        source = next((each for each in node.all_input_nodes if each.op != "get_attr"), None)
        before = list(self._of(source))
        if isinstance(module, nn.Embedding):
            return (*before, True)
        if isinstance(module, nn.Flatten):
            return _merged(tuple(before), module.start_dim, module.end_dim)
        if len(before) != rank:
            return ()
        if isinstance(module, nn.Linear):
            before[-1] = True
        elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            before[-len(module.normalized_shape) :] = [True] * len(module.normalized_shape)
        elif isinstance(module, nn.modules.conv._ConvNd):
            before[-1 - len(module.kernel_size)] = True
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and rank > 1:
            before[1] = True
        elif not isinstance(module, _KEEPING):
            return ()
        return tuple(before)

    def _reduced(self, node: fx.Node) -> _Fixed:
        bound = bind_call(node)
        values = {} if bound is None else bound.values
        dims, fixed = values.get("dim"), list(self._of(values.get("input")))
        dims = [dims] if isinstance(dims, int) else dims
        if not fixed or values.get("keepdim") is not True or not isinstance(dims, (list, tuple)):
            return ()
        for axis in dims:
            fixed[axis] = True
        return tuple(fixed)

    def _moved(self, node: fx.Node, rank: int) -> _Fixed:
        """Axes in another order."""
        fixed, order = self._of(node.args[0]), list(range(rank))
        given = [] if node.target is getattr else _flat(node.args[1:])
        if node.kwargs or len(fixed) != rank or not all(isinstance(axis, int) for axis in given):
            return ()
        if operation(node) == "permute":
            order = [axis % rank for axis in given]
        else:
            first, second = given or (-2, -1)
            order[first], order[second] = order[second], order[first]
        return tuple(fixed[axis] for axis in order)

    def _seen_as(self, node: fx.Node, rank: int) -> _Fixed:
        """A view, an expansion: a size that is written down."""
        sizes, before = _flat(node.args[1:]), self._of(node.args[0])
        if node.kwargs or len(sizes) != rank:
            return ()
        keeps = operation(node) == "expand"
        lead = rank - len(before)
        return tuple(
            self._is_known(size)
            or (keeps and isinstance(size, int) and size == -1 and at >= lead and before[at - lead])
            for at, size in enumerate(sizes)
        )

    def _unsqueezed(self, node: fx.Node, rank: int) -> _Fixed:
        axis, fixed = _flat(node.args[1:] or tuple(node.kwargs.values())), list(self._of(node.args[0]))
        if len(axis) != 1 or not isinstance(axis[0], int):
            return ()
        fixed.insert(axis[0] % rank, True)
        return tuple(fixed)

    def _flattened(self, node: fx.Node, rank: int) -> _Fixed:
        bound, before = bind_call(node), self._of(node.args[0])
        values = {} if bound is None else bound.values
        start, end = values.get("start_dim"), values.get("end_dim")
        if not isinstance(start, int) or not isinstance(end, int):
            return ()
        return _merged(before, start, end)

    def _item(self, node: fx.Node, rank: int) -> _Fixed:
        """A part of a tensor, or one of those that it was cut into."""
        source, index = node.args
        if isinstance(source, fx.Node) and operation(source) in ("chunk", "split", "split_with_sizes"):
            return self._of(source.args[0])
        parts = list(index) if isinstance(index, tuple) else [index]
        fixed = list(self._of(source))
        if any(isinstance(part, (fx.Node, list, torch.Tensor, bool)) for part in parts):
            return ()
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            taken = sum(part is not None and part is not Ellipsis for part in parts)
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

    def _joined(self, node: fx.Node, rank: int) -> _Fixed:
        bound = bind_call(node)
        values = {} if bound is None else bound.values
        tensors, dim = values.get("tensors"), values.get("dim")
        if not isinstance(tensors, (list, tuple)) or not isinstance(dim, int):
            return ()
        flags = [self._of(each) for each in tensors]
        if any(len(each) != rank for each in flags):
            return ()
        axes = zip(*flags, strict=True)
        return tuple(all(each) if axis == dim % rank else any(each) for axis, each in enumerate(axes))

    def _product(self, node: fx.Node, rank: int) -> _Fixed:
        pair = node.args[:2]
        flags = [self._of(each) for each in pair]
        if node.kwargs or len(pair) != 2 or any(len(each) < 2 for each in flags):
            return ()
        both = self._broadcast([each for each in pair if isinstance(each, fx.Node)], rank)
        return (*both[:-2], flags[0][-2], flags[1][-1])


def _merged(before: _Fixed, start: int, end: int) -> _Fixed:
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


_READERS: dict[str, Callable[[_Sizes, fx.Node, int], _Fixed]] = {
    **dict.fromkeys(("permute", "transpose", "t", "mT"), _Sizes._moved),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand"), _Sizes._seen_as),
    "unsqueeze": _Sizes._unsqueezed,
    "flatten": _Sizes._flattened,
    "getitem": _Sizes._item,
    "cat": _Sizes._joined,
    **dict.fromkeys(("matmul", "bmm"), _Sizes._product),
}
