"""Which values of a graph are numbers: sizes of tensors, their numbers of dimensions, and what is computed of these."""

import operator
from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.rank import is_rank_query

_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "floordiv", "mod", "pow", "neg"})


def is_number(value: Any) -> bool:
    """Whether an argument of a call is surely a number of Python."""
    if not isinstance(value, fx.Node):
        return isinstance(value, (int, float))
    if is_rank_query(value) or value.target in (len, "numel", "nelement", torch.ops.aten.sym_size.int):
        return True
    if value.op == "call_method" and value.target == "size":
        return not _is_shape(value)
    if value.target is operator.getitem:
        return _is_shape(value.args[0]) and isinstance(value.args[1], int)
    return is_python_operator(value) and operation(value) in _ARITHMETIC and all(map(is_number, value.args))


def is_python_operator(node: fx.Node) -> bool:
    """Whether a node is an operator of Python, ``x + y`` or ``x += y``, which takes numbers as well as tensors."""
    return node.op == "call_function" and getattr(node.target, "__module__", None) == "_operator"


def _is_shape(value: Any) -> bool:
    """Whether a value is all sizes of a tensor."""
    if not isinstance(value, fx.Node):
        return False
    if value.op == "call_method":
        return value.target == "size" and len(value.args) + len(value.kwargs) == 1
    return value.target is getattr and value.args[1] == "shape"
