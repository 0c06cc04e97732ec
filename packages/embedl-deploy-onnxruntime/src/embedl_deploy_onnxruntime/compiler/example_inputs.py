"""Inputs to time an engine with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedl_deploy.errors import InputError

_TYPES = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "uint32": np.uint32,
    "int64": np.int64,
    "uint64": np.uint64,
    "bool": np.bool_,
}
#: The size of open dimensions that nothing was said of.
_OPEN = 1
Shapes = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]


def shapes_to_time(session: Any, given: Shapes) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The shapes of all inputs, and of these those with open dimensions that nothing was said of.

    Open dimensions of one name have one size. Those that nothing was said of have the size 1.

    Args:
        session: Of the model.
        given: The smallest, the usual and the largest shape of inputs.

    Raises:
        InputError: A given shape does not fit the input.
    """
    known: dict[str, int] = {}
    for value in (value for value in session.get_inputs() if value.name in given):
        usual = given[value.name][1]
        fits = len(usual) == len(value.shape) and all(
            not isinstance(own, int) or own == size for own, size in zip(value.shape, usual, strict=True)
        )
        if not fits:
            shown = "×".join(str(size) if isinstance(size, int) else "?" for size in value.shape)
            raise InputError(f"shapes[{value.name!r}] is {given[value.name]!r}, but the input has the shape {shown}.")
        known |= {str(own): size for own, size in zip(value.shape, usual, strict=True) if isinstance(own, str)}
    shapes, chosen = {}, {}
    for value in session.get_inputs():
        if value.name in given:
            shapes[value.name] = tuple(given[value.name][1])
            continue
        shapes[value.name] = tuple(
            size if isinstance(size, int) else known.get(str(size), _OPEN) for size in value.shape
        )
        if any(not isinstance(size, int) for size in value.shape):
            chosen[value.name] = shapes[value.name]
    return shapes, chosen


def random_inputs(session: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Normal numbers from a seed; integers and booleans are ones, valid as an index, a token or a mask.

    Raises:
        InputError: An input is of a type that numpy does not have.
    """
    random = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for value in session.get_inputs():
        kind = _TYPES.get(value.type.removeprefix("tensor(").removesuffix(")"))
        if kind is None:
            raise InputError(
                f"The input {value.name!r} is a {value.type}, which cannot be timed: numpy has no such type."
            )
        if np.issubdtype(kind, np.floating):
            found[value.name] = random.standard_normal(shapes[value.name]).astype(kind)
        else:
            found[value.name] = np.ones(shapes[value.name], kind)
    return found
