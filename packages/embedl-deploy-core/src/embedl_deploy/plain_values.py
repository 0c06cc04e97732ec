"""Dataclasses from plain values, such as JSON has, each checked against the type that its field declares."""

import dataclasses
import enum
import math
import types
import typing
from typing import Any, TypeVar

_Kind = TypeVar("_Kind")

_EXPECTED = {int: "an integer of 64 bits", float: "a finite number", str: "a text", bool: "true or false"}
#: Integers of 64 bits; larger ones are not sizes of anything.
_MOST = 2**63


def value_of(kind: type[_Kind], plain: Any, where: str = "", *, partly: bool = False) -> _Kind:
    """A value of a type.

    Args:
        kind: A dataclass whose fields are dataclasses, enumerations, numbers, texts, ``None``, tuples of them and
            dictionaries from texts to them.
        plain: Dictionaries, lists, numbers, texts and ``None``.
        where: What it is called in messages.
        partly: Pass over entries that a dataclass has neither a field nor a property for; of a property, the value
            follows from the fields, and is passed over in any case.

    Raises:
        ValueError: Something is missing, too much, or of another type; says where.
    """
    found: Any = _value_of(kind, plain, where, partly)
    return found  # type: ignore[no-any-return]  # of the type that was asked for


def _value_of(kind: Any, plain: Any, where: str, partly: bool) -> Any:
    if dataclasses.is_dataclass(kind):
        return _dataclass_of(kind, plain, where, partly)
    if isinstance(kind, types.UnionType):  # only "X | None"
        return None if plain is None else _value_of(typing.get_args(kind)[0], plain, where, partly)
    if typing.get_origin(kind) is tuple:
        if not isinstance(plain, (list, tuple)):
            raise _wrong(where, plain, "a list")
        each = typing.get_args(kind)[0]
        return tuple(_value_of(each, value, f"{where}[{place}]", partly) for place, value in enumerate(plain))
    if typing.get_origin(kind) is dict:
        if not isinstance(plain, dict):
            raise _wrong(where, plain, "an object")
        each = typing.get_args(kind)[1]
        return {str(name): _value_of(each, value, f"{where}[{name!r}]", partly) for name, value in plain.items()}
    if issubclass(kind, enum.Enum):
        if not isinstance(plain, str) or plain not in {member.value for member in kind}:
            raise _wrong(where, plain, f"one of {', '.join(str(member.value) for member in kind)}")
        return kind(plain)
    is_number = type(plain) is int and -_MOST <= plain < _MOST
    if kind is float and (is_number or (type(plain) is float and math.isfinite(plain))):
        return float(plain)
    if type(plain) is not kind or (kind is int and not is_number):
        raise _wrong(where, plain, _EXPECTED[kind])
    return plain


def _dataclass_of(kind: Any, plain: Any, where: str, partly: bool) -> Any:
    if not isinstance(plain, dict):
        raise _wrong(where, plain, "an object")
    types_of = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(name for name in set(map(str, plain)) - set(fields) if not _follows(kind, name))
    if unknown and not partly:
        raise ValueError(f"{where or 'it'} has an entry {unknown[0]!r}, which is not known")
    for name, field in fields.items():
        if name not in plain and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where or 'it'} has no {name!r}")
    prefix = f"{where}." if where else ""
    known = {name: value for name, value in plain.items() if name in fields}
    return kind(**{name: _value_of(types_of[name], value, f"{prefix}{name}", partly) for name, value in known.items()})


def _follows(kind: Any, name: str) -> bool:
    return isinstance(getattr(kind, name, None), property)


def _wrong(where: str, plain: Any, expected: str) -> ValueError:
    shown = repr(plain)
    return ValueError(f"{where or 'it'} is {shown if len(shown) <= 60 else shown[:60] + '…'}; expected {expected}")
