"""Translates annotations into checks of values.

Stricter than ``isinstance``: ``True`` and NaN are not numbers, a string is not a list of strings, a whole number has at
most 64 bits. More lenient where values mean the same:
NumPy's scalars, lists in place of tuples, the value of an enumeration in place of its member. What fits is
handed on as the annotation says it.

Elements are looked at in lists, tuples, sets and dictionaries. Other iterables, such as a DataLoader, are not read.
"""

import collections.abc as abc
import os
import types
import typing
from collections.abc import Iterable
from enum import Enum
from itertools import repeat
from typing import Any, Literal, TypeVar, Union

import numpy as np
import torch

from embedl_deploy.validation.plain_values import PLAIN, Expectation, Unfit, instance

_TEXTS = (str, bytes, bytearray)
_MAPPINGS = (dict, abc.Mapping)
_ITERABLES = (list, abc.Sequence, abc.Collection, abc.Iterable)
_SMALL = (list, tuple, set, frozenset, dict)
_NAMES = {torch.nn.Module: "a module", torch.Tensor: "a tensor", bytes: "bytes"}


def expectation_of(annotation: Any) -> Expectation | None:
    """What an annotation asks of a value; ``None`` if anything will do."""
    if annotation in (Any, object):
        return None
    if isinstance(annotation, TypeVar):
        return expectation_of(Any if annotation.__bound__ is None else annotation.__bound__)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Literal:
        return _one_of(arguments)
    if origin is type:
        return _subclass_of(arguments[0])
    plain = origin or annotation
    if plain in PLAIN:
        return PLAIN[plain]
    if plain is tuple:
        return _tuple(arguments)
    if plain is abc.Callable:
        return instance(callable, "a function")
    if plain in _MAPPINGS:
        return _mapping(plain, arguments)
    if plain in _ITERABLES:
        return _iterable(plain, arguments[0])
    if _is_enumeration(plain):
        return _member(plain)
    name = _NAMES.get(plain) or f"{'an' if plain.__name__[0] in 'AEIOU' else 'a'} {plain.__name__}"
    return instance(lambda value: isinstance(value, plain), name, plain)


def _union(arms: tuple[Any, ...]) -> Expectation | None:
    """Any of several. A string beside an enumeration is a member's value, and beside a path it is one."""
    if any(typing.get_origin(arm) is os.PathLike or _is_enumeration(arm) for arm in arms):
        arms = tuple(arm for arm in arms if arm is not str)
    expectations = [expectation_of(arm) for arm in arms]
    kept = [each for each in expectations if each is not None]
    if len(kept) < len(expectations):
        return None

    def admit(value: Any) -> Any:
        closest = Unfit(value)
        converted = []
        for each in kept:
            try:
                fit = each.admit(value)
            except Unfit as unfit:
                closest = max(closest, unfit, key=lambda found: len(found.where))
                continue
            if fit is value:
                return value
            converted.append(fit)
        if converted:
            return converted[0]
        raise closest

    return Expectation(_described([each.words for each in kept]), admit, frozenset().union(*(e.at_once for e in kept)))


def _is_enumeration(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Enum)


def _described(words: list[str]) -> str:
    """Alternatives, those that end in a list of alternatives themselves last."""
    simple = [each for each in words if "," not in each]
    return ", or ".join([*([_listed(simple)] if simple else []), *(each for each in words if "," in each)])


def _listed(words: list[str]) -> str:
    return " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def _one_of(choices: tuple[Any, ...]) -> Expectation:
    return instance(
        lambda value: any(type(value) is type(choice) and value == choice for choice in choices),
        _listed([repr(choice) for choice in choices]),
    )


def _member(enumeration: type[Enum]) -> Expectation:
    def admit(value: Any) -> Any:
        if isinstance(value, enumeration):
            return value
        found = [member for member in enumeration if type(value) is type(member.value) and value == member.value]
        if not found:
            raise Unfit(value)
        return found[0]

    names = _listed([f"{enumeration.__name__}.{member.name}" for member in enumeration])
    return Expectation(f"{names} (or its value, such as {next(iter(enumeration)).value!r})", admit)


def _subclass_of(base: Any) -> Expectation:
    if not isinstance(base, type):  # a variable, or anything
        base = getattr(base, "__bound__", None) or object
    return instance(
        lambda value: isinstance(value, type) and issubclass(value, base), f"a class derived from {base.__name__}"
    )


def _fitted(values: Iterable[Any], expected: Iterable[Expectation | None]) -> list[Any]:
    fits = []
    for index, (value, each) in enumerate(zip(values, expected, strict=False)):
        try:
            fits.append(value if each is None or type(value) in each.at_once else each.admit(value))
        except Unfit as unfit:
            raise unfit.inside(f"[{index}]") from None
    return fits


def _tuple(arguments: tuple[Any, ...]) -> Expectation:
    """Lists are taken for tuples, and become them."""
    of_any_length = arguments[1:] == (Ellipsis,)
    expected = [expectation_of(each) for each in arguments if each is not Ellipsis]

    def admit(value: Any) -> Any:
        if not isinstance(value, (tuple, list)) or not (of_any_length or len(value) == len(expected)):
            raise Unfit(value)
        fits = _fitted(value, repeat(expected[0]) if of_any_length else expected)
        return value if isinstance(value, tuple) and all(map(_is, fits, value)) else tuple(fits)

    words = "a tuple" if of_any_length else f"a tuple of {len(expected)}"
    first = expected[0] if expected else None
    return Expectation(words if first is None else f"{words}, each {first.words}", admit)


def _is(one: Any, other: Any) -> bool:
    return one is other


def _iterable(kind: type, argument: Any) -> Expectation:
    element = expectation_of(argument)

    def admit(value: Any) -> Any:
        if isinstance(value, (*_TEXTS, torch.Tensor)) or not isinstance(value, kind):
            raise Unfit(value)
        if element is not None and isinstance(value, np.ndarray):
            raise Unfit(value)
        if element is not None and isinstance(value, _SMALL):
            fits = _fitted(value, repeat(element))
            if not all(map(_is, fits, value)) and not isinstance(value, dict):
                return type(value)(fits) if type(value) in _SMALL else tuple(fits)
        return value

    words = {"Sequence": "a list or a tuple", "list": "a list", "Iterable": "an iterable"}
    name = words.get(kind.__name__, "a list, a tuple or a set")
    return Expectation(name if element is None else f"{name}, each {element.words}", admit)


def _mapping(kind: type, arguments: tuple[Any, ...]) -> Expectation:
    """Any mapping is taken for a dictionary, and becomes one where the annotation says so."""
    key, value_of = (expectation_of(each) for each in arguments or (Any, Any))

    def admit(value: Any) -> Any:
        if not isinstance(value, abc.Mapping):
            raise Unfit(value)
        fits = {}
        for name, item in value.items():
            if key is not None:
                try:
                    key.admit(name)
                except Unfit:
                    raise Unfit(name, " (a key)") from None
            try:
                fits[name] = item if value_of is None else value_of.admit(item)
            except Unfit as unfit:
                raise unfit.inside(f"[{name!r}]") from None
        if isinstance(value, dict if kind is dict else abc.Mapping) and all(v is value[k] for k, v in fits.items()):
            return value
        return fits

    described = "" if key is None else f" from {key.words} to {'anything' if value_of is None else value_of.words}"
    return Expectation(f"a dictionary{described}", admit)
