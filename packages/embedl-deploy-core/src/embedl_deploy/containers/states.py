"""Containers that a model returns for its next call, such as caches."""

from typing import Any

#: Their classes.
_STATES: set[type] = set()


def note_state(kind: type) -> None:
    """Remember that objects of a class are what a model continues with."""
    _STATES.add(kind)


def is_state(value: Any) -> bool:
    """Whether a value is an object of such a class."""
    return type(value) in _STATES
