"""One name for one operation, however it is written.

``F.relu(x)``, ``torch.relu(x)``, ``x.relu()``, ``x.relu_()`` and ``aten.relu.default(x)`` are all the operation
``"relu"``; ``x + y``, ``x += y``, ``torch.add(x, y)`` and ``x.add(y)`` are all ``"add"``. Functions from outside
torch and the ``operator`` module stand for themselves.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload, OpOverloadPacket

#: An operation: a name shared by all its spellings, or, for a foreign function, the function.
Operation = str | Callable[..., Any]

#: Operations that give what a tensor holds other sizes, in the same order.
VIEWS = frozenset({"view", "reshape", "_unsafe_view"})
#: Operations that give a tensor as it is, in other memory.
SAME = frozenset({"contiguous", "clone"})

_TORCH_NAMESPACES = frozenset(
    {"torch", "torch.nn.functional", "torch._C._nn", "torch.functional", "torch.special"}
    | {"torch._C._special", "torch._C._linalg"}
)
_OPERATOR_NAMES = {
    "truediv": "div",
    "and_": "bitwise_and",
    "or_": "bitwise_or",
    "iand": "bitwise_and",  # there is no operator.and that the prefix could be taken from, nor an operator.or
    "ior": "bitwise_or",
}

#: Further names of torch for the same operation, as its documentation says, and those of its decompositions.
ALIASES = {
    "_threshold": "threshold",
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "expit": "sigmoid",
    "fix": "trunc",
    "gammainc": "igamma",
    "gammaincc": "igammac",
    "ger": "outer",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "logsigmoid": "log_sigmoid",
    "moveaxis": "movedim",
    "multigammaln": "mvlgamma",
    "multiply": "mul",
    "ndimension": "dim",
    "negative": "neg",
    "nelement": "numel",
    "not_equal": "ne",
    "psi": "digamma",
    "row_stack": "vstack",
    "subtract": "sub",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "trapz": "trapezoid",
    "true_divide": "div",
}
#: Functions of torch.linalg that are the operation of that name; those of torch.special all are.
_SAME_IN_LINALG = frozenset({"linalg_matmul", "linalg_diagonal"})

#: Names of the methods by which ``x += y``, ``x[i] = y`` and the like write to ``x``.
_WRITING_METHODS = frozenset(
    {
        *(f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")),
        *(f"__i{name}__" for name in ("and", "or", "xor", "lshift", "rshift")),
        "__setitem__",
    }
)
_WRITING_OPERATORS = frozenset(getattr(operator, name) for name in _WRITING_METHODS)

#: Operations of two tensors whose order does not change the result.
COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum", "bitwise_and", "bitwise_or", "eq", "ne"})


def _strip_in_place(name: str) -> str:
    """``relu_`` is ``relu`` computed in place; dunder and single-underscore names stay as they are."""
    return name[:-1] if name.endswith("_") and not name.startswith("_") and len(name) > 1 else name


def _common_name(name: str) -> str:
    """The one name of an operation of torch: without the mark of being in place, the namespace, or an alias."""
    name = _strip_in_place(name)
    if name in _SAME_IN_LINALG or name.startswith("special_"):
        name = name.partition("_")[2]
    return ALIASES.get(name, name)


def operation_of_target(target: Any) -> Operation:
    """Name the operation that a ``call_function`` target (a callable) or a method name (a string) computes."""
    if isinstance(target, str):
        return _common_name(target)
    if isinstance(target, OpOverload):
        return _common_name(target._opname) if target.namespace == "aten" else target
    if isinstance(target, OpOverloadPacket):
        namespace, _, own_name = target._qualified_op_name.partition("::")
        if namespace == "aten":
            return _common_name(own_name)
        overloads: list[str] = target.overloads()  # type: ignore[no-untyped-call]  # torch's
        if len(overloads) == 1:  # Python code calls the packet, torch.export its overload
            target = getattr(target, overloads[0])
        return target  # type: ignore[no-any-return]  # a foreign operator stands for itself
    module = getattr(target, "__module__", None)
    name = getattr(target, "__name__", None)
    if module == "_operator" and name is not None:
        if name.startswith("i") and callable(getattr(operator, name[1:], None)):
            name = name[1:]  # operator.iadd -> add
        return _OPERATOR_NAMES.get(name, _strip_in_place(name))
    if module in _TORCH_NAMESPACES and name is not None:
        return _common_name(name)
    if getattr(target, "__objclass__", None) is torch._C.TensorBase and name is not None:
        return _common_name(name)  # torch.Tensor.relu and friends
    return target  # type: ignore[no-any-return]  # a foreign callable stands for itself


def operation(node: fx.Node) -> Operation | None:
    """The operation of a ``call_function`` or ``call_method`` node; ``None`` for every other node.

    A scaled addition (``alpha`` other than 1) is not an ``"add"``: it returns ``None`` so that nothing that
    expects a plain sum takes it for one.
    """
    if node.op not in ("call_function", "call_method"):
        return None
    name = operation_of_target(node.target)
    if name in ("add", "sub") and node.kwargs.get("alpha", 1) != 1:
        return None
    return name


def is_commutative(node: fx.Node) -> bool:
    """Whether the node's two tensor operands can be swapped."""
    return operation(node) in COMMUTATIVE


def is_in_place(node: fx.Node) -> bool:
    """Whether a call is spelled as one that writes to its first operand: ``x += y``, ``x.relu_()``, ``aten.add_``."""
    target = node.target
    if getattr(target, "__module__", None) == "_operator":
        return target in _WRITING_OPERATORS
    name = target if isinstance(target, str) else getattr(target, "_opname", getattr(target, "__name__", ""))
    if name.startswith("__"):
        return name in _WRITING_METHODS
    return name.endswith("_") and not name.startswith("_")
