"""The arguments of a call by parameter name, also for functions without a Python signature.

torch's built-in functions and tensor methods have no signature to inspect; the operators of the same name have
schemas. The first operand is always called ``input``, which schemas call ``self``.
"""

import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import fx
from torch._jit_internal import boolean_dispatched
from torch._ops import OpOverload, OpOverloadPacket

#: Names that torch's built-in functions take as well, after NumPy's.
_OTHER_NAMES = {"self": "input", "x": "input", "a": "input", "x1": "input", "x2": "other", "axis": "dim"} | {
    "keepdims": "keepdim"
}
_MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function.

    Attributes:
        name: Its name; ``input`` for ``self``.
        default: Its default, :attr:`inspect.Parameter.empty` for none.
        kind: The type as a schema writes it; empty where it is not known.
        by_position: Whether it can be given by position.
    """

    name: str
    default: Any
    kind: str = ""
    by_position: bool = True

    def takes(self, value: Any) -> bool:
        """Whether a literal is of the type; what a node will give is not known."""
        kind = self.kind
        if not kind or isinstance(value, (fx.Node, torch.dtype, torch.device, torch.layout, torch.memory_format)):
            return True
        if value is None:
            return kind.startswith("Optional")
        if isinstance(value, bool):
            return "bool" in kind or "number" in kind
        if isinstance(value, (list, tuple)):
            return "List" in kind
        if isinstance(value, str):
            return "str" in kind
        if isinstance(value, int):
            return any(word in kind for word in ("int", "float", "number"))
        return not isinstance(value, float) or "float" in kind or "number" in kind


@dataclass(frozen=True)
class BoundCall:
    """The arguments of a call by name.

    Attributes:
        values: Those given, and defaults for the others.
        defaults: The defaults of those parameters that have one.
    """

    values: dict[str, Any]
    defaults: dict[str, Any]


def bind_call(node: fx.Node) -> BoundCall | None:
    """The arguments of a call of a function or method by name.

    Args:
        node: A ``call_function`` or ``call_method`` node.

    Returns:
        ``None`` where no signature is known, or none that takes these arguments.
    """
    for signature in _signatures(node.target):
        bound = _bind(signature, node)
        if bound is not None:
            return bound
    return None


def _bind(signature: tuple[Parameter, ...], node: fx.Node) -> BoundCall | None:
    positional = [parameter for parameter in signature if parameter.by_position]
    if len(node.args) > len(positional):
        return None
    names = {parameter.name: parameter for parameter in signature}
    given = {parameter.name: value for parameter, value in zip(positional, node.args, strict=False)}
    for name, value in node.kwargs.items():
        known = name if name in names else _OTHER_NAMES.get(name, name)
        if known not in names or known in given:
            return None
        given[known] = value
    defaults = {p.name: p.default for p in signature if p.default is not _MISSING}
    values = {name: given[name] if name in given else defaults.get(name, _MISSING) for name in names}
    if any(value is _MISSING for value in values.values()):
        return None
    return BoundCall(values, defaults) if all(names[name].takes(value) for name, value in given.items()) else None


@lru_cache(maxsize=4096)
def _signatures(target: Any) -> tuple[tuple[Parameter, ...], ...]:
    if isinstance(target, OpOverload):
        return (_of_schema(target),)
    if isinstance(target, OpOverloadPacket):
        return _of_packet(target)
    if not isinstance(target, str):
        dispatched = boolean_dispatched.get(target)
        python = _of_python(target if dispatched is None else dispatched["if_false"])
        if python is not None:
            return (python,)
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    packet = getattr(torch.ops.aten, name, None) if name and not name.startswith("__") else None
    return _of_packet(packet) if isinstance(packet, OpOverloadPacket) else ()


def _of_python(function: Any) -> tuple[Parameter, ...] | None:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return None  # a built-in function
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return None
    return tuple(Parameter(p.name, p.default, by_position=p.kind is not p.KEYWORD_ONLY) for p in parameters)


def _of_packet(packet: OpOverloadPacket) -> tuple[tuple[Parameter, ...], ...]:
    names: list[str] = packet.overloads()  # type: ignore[no-untyped-call]  # torch's
    return tuple(_of_schema(getattr(packet, name)) for name in names)


def _of_schema(overload: OpOverload) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            "input" if argument.name == "self" else argument.name,
            argument.default_value if argument.has_default_value() else _MISSING,
            str(argument.type),
            not argument.kwarg_only,
        )
        for argument in overload._schema.arguments
    )
