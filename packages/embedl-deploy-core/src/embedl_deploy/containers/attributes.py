"""Converts the attributes of an object other than tensors to comparable JSON values, and back."""

import importlib
from typing import Any

from embedl_deploy.errors import InputError

_PLAIN = (bool, int, float, str, type(None))


def described(value: Any, what: str) -> Any:
    """A value as one that compares and that JSON can hold.

    Args:
        value: A plain value, a class, or a list, tuple or dictionary of such.
        what: What holds it, for the message.

    Raises:
        InputError: It is something else.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, type):
        return {"class": path_of(value)}
    if type(value) in (list, tuple):
        return {type(value).__name__: [described(part, what) for part in value]}
    if type(value) is dict:
        return {"dict": [[described(key, what), described(part, what)] for key, part in value.items()]}
    raise InputError(
        f"{what} is a {type(value).__name__}, and a graph is made for one structure of its inputs and outputs, of "
        "tensors and plain values. Leave it out, or tell torch yourself how to take the class apart, before anything "
        "is transformed: torch.utils._pytree.register_pytree_node."
    )


def value_of(description: Any) -> Any:
    """The value that :func:`described` was given."""
    if not isinstance(description, dict):
        return description
    ((kind, value),) = description.items()
    if kind == "class":
        return class_at(value)
    if kind == "dict":
        return {value_of(key): value_of(part) for key, part in value}
    parts = [value_of(part) for part in value]
    return parts if kind == "list" else tuple(parts)


def path_of(kind: type) -> str:
    """``"module:Class"``."""
    return f"{kind.__module__}:{kind.__qualname__}"


def class_at(path: str) -> Any:
    """The class at a path of :func:`path_of`."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
