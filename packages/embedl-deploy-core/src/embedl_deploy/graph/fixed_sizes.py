"""Distinguishes sizes that are the same in every call from sizes of the example inputs.

A tensor of the model has its sizes for good; what flows in has not: the length of a sequence, a batch. A layer with a
weight fixes the sizes that its weight has, and what keeps an axis after it keeps its size. Where ``torch.export`` has
noted sizes, those count. A size that nothing fixes for certain counts as one that may change.
"""

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
from embedl_deploy.graph.size_rules import RULES, Fixed, KnownSizes, merged

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


class _Sizes(KnownSizes):
    """The fixed sizes of every value of a graph, as it stands."""

    def __init__(self, graph: fx.Graph) -> None:
        super().__init__()
        for node in graph.nodes:
            shape = shape_of(node)
            if shape is None:
                if self._is_number(node):
                    self.numbers.add(node)
                continue
            found = self._read(node, len(shape))
            self.fixed[node] = found if len(found) == len(shape) else (False,) * len(shape)

    def _read(self, node: fx.Node, rank: int) -> Fixed:
        exported = node.meta.get("val")
        if isinstance(exported, torch.Tensor):
            return tuple(isinstance(size, int) for size in exported.shape)
        if node.op == "get_attr":
            return (True,) * rank
        name = operation(node)
        reader = RULES.get(name) if isinstance(name, str) else None
        if reader is not None:
            return reader(self, node, rank)
        module = get_module(node)
        if module is not None:
            return self._of_layer(module, node, rank)
        if node.target is getattr and node.args[1] == "mT":
            return RULES["mT"](self, node, rank)
        if not isinstance(name, str):
            return ()
        if name in _ELEMENTWISE:
            return self.broadcast(node.all_input_nodes, rank)
        return self._reduced(node) if name in _REDUCING else ()

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
        fixed = self.of(value)
        return isinstance(axis, int) and -len(fixed) <= axis < len(fixed) and fixed[axis]

    def _of_layer(self, module: nn.Module, node: fx.Node, rank: int) -> Fixed:
        source = next((each for each in node.all_input_nodes if each.op != "get_attr"), None)
        before = list(self.of(source))
        if isinstance(module, nn.Embedding):
            return (*before, True)
        if isinstance(module, nn.Flatten):
            return merged(tuple(before), module.start_dim, module.end_dim)
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

    def _reduced(self, node: fx.Node) -> Fixed:
        bound = bind_call(node)
        values = {} if bound is None else bound.values
        dims, fixed = values.get("dim"), list(self.of(values.get("input")))
        dims = [dims] if isinstance(dims, int) else dims
        if not fixed or values.get("keepdim") is not True or not isinstance(dims, (list, tuple)):
            return ()
        for axis in dims:
            fixed[axis] = True
        return tuple(fixed)
