"""Registers a class with torch as a container."""

from collections.abc import Callable
from typing import Any

from torch.utils import _pytree as pytree


def register(kind: type, flatten: Callable[[Any], tuple[list[Any], Any]], unflatten: Callable[..., Any]) -> None:
    """Make a class known as a list of parts, unless it is known.

    Args:
        kind: The class itself; those that derive from it are not.
        flatten: From an object to its parts, and what else there is to it, in lists, dictionaries and plain values.
        unflatten: From parts and the rest to a new object.
    """
    if kind in pytree.SUPPORTED_NODES:
        return

    def with_keys(value: Any) -> tuple[list[tuple[pytree.KeyEntry, Any]], Any]:
        parts, rest = flatten(value)
        return [(pytree.SequenceKey(index), part) for index, part in enumerate(parts)], rest

    pytree.register_pytree_node(
        kind,
        flatten,
        unflatten,
        serialized_type_name=f"{kind.__module__}.{kind.__qualname__}",
        flatten_with_keys_fn=with_keys,
    )
