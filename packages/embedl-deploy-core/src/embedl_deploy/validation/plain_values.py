"""What single values have to be: numbers, strings, paths, instances of a class."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class Unfit(Exception):  # noqa: N818 - caught where it is known what the value is an argument of
    """A value is not what is expected.

    Attributes:
        value: What does not fit: the value, or an element of it.
        where: Which element, such as ``"[1]"``; empty for the value itself.
    """

    def __init__(self, value: Any, where: str = "") -> None:
        super().__init__(where)
        self.value = value
        self.where = where

    def inside(self, where: str) -> "Unfit":
        """The same, seen from the value that it is an element of."""
        return Unfit(self.value, where + self.where)


@dataclass(frozen=True)
class Expectation:
    """What is expected of a value.

    Attributes:
        words: For messages: ``"True or False"``.
        admit: Gives the value as it is handed on, or raises :class:`Unfit`.
        at_once: Classes whose very instances fit as they are.
    """

    words: str
    admit: Callable[[Any], Any]
    at_once: frozenset[type] = frozenset()


def instance(fits: Callable[[Any], bool], words: str, *at_once: type) -> Expectation:
    """What a function says of a value, which is handed on as it is."""

    def admit(value: Any) -> Any:
        if fits(value):
            return value
        raise Unfit(value)

    return Expectation(words, admit, frozenset(at_once))


def _bool(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise Unfit(value)


def _whole(value: Any) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return int(value)
    raise Unfit(value)


def _number(value: Any) -> int | float:
    if isinstance(value, (float, np.floating)) and not math.isnan(value):
        return float(value)
    return _whole(value)


def _path(value: Any) -> str | os.PathLike[str]:
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if isinstance(text, str) and text and "\0" not in text:
        return value  # type: ignore[no-any-return]  # it is one of the two
    raise Unfit(value)


_PATH = Expectation("a path", _path)
PLAIN: dict[Any, Expectation] = {
    bool: Expectation("True or False", _bool, frozenset({bool})),
    int: Expectation("a whole number (of at most 64 bits)", _whole),
    float: Expectation("a number (not NaN)", _number),
    str: instance(lambda value: isinstance(value, str), "a string", str),
    type(None): instance(lambda value: value is None, "None", type(None)),
    Path: Expectation("a path", lambda value: Path(_path(value))),
    os.PathLike: _PATH,
}
