"""Dataclasses from plain values, such as JSON has, each checked against the type that its field declares."""

import dataclasses
import enum
import math
import types
import typing
from typing import Any, TypeVar

_Kind = TypeVar("_Kind")

#: Integers of 64 bits; larger ones are not sizes of anything.
_MOST = 2**63


def value_of(kind: type[_Kind], plain: Any, where: str = "") -> _Kind:
    """A value of a type.

    Args:
        kind: A dataclass whose fields are dataclasses, enumerations, numbers, texts, ``None`` and tuples of them.
        plain: Dictionaries, lists, numbers, texts and ``None``.
        where: What it is called in messages.

    Raises:
        ValueError: Something is missing, too much, or of another type; says where.
    """
    found: Any = _value_of(kind, plain, where)
    return found  # type: ignore[no-any-return]  # of the type that was asked for


def _value_of(kind: Any, plain: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _dataclass_of(kind, plain, where)
    if isinstance(kind, types.UnionType):  # only "X | None"
        return None if plain is None else _value_of(typing.get_args(kind)[0], plain, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(plain, (list, tuple)):
            raise _wrong(where, plain, "a list")
        each = typing.get_args(kind)[0]
        return tuple(_value_of(each, value, f"{where}[{place}]") for place, value in enumerate(plain))
    if issubclass(kind, enum.Enum):
        if not isinstance(plain, str) or plain not in {member.value for member in kind}:
            raise _wrong(where, plain, f"one of {', '.join(str(member.value) for member in kind)}")
        return kind(plain)
    if kind is float and type(plain) in (int, float) and math.isfinite(plain):
        return float(plain)
    if type(plain) is not kind or (kind is int and not -_MOST <= plain < _MOST):
        raise _wrong(where, plain, {int: "an integer of 64 bits", float: "a finite number", str: "a text"}[kind])
    return plain


def _dataclass_of(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, dict):
        raise _wrong(where, plain, "an object")
    types_of = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(set(map(str, plain)) - set(fields)):
        raise ValueError(f"{where or 'it'} has an entry {unknown[0]!r}, which is not known")
    for name, field in fields.items():
        if name not in plain and field.default is dataclasses.MISSING:
            raise ValueError(f"{where or 'it'} has no {name!r}")
    prefix = f"{where}." if where else ""
    return kind(**{name: _value_of(types_of[name], value, f"{prefix}{name}") for name, value in plain.items()})


def _wrong(where: str, plain: Any, expected: str) -> ValueError:
    shown = repr(plain)
    return ValueError(f"{where or 'it'} is {shown if len(shown) <= 60 else shown[:60] + '…'}; expected {expected}")
