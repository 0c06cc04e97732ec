"""Paths of values in a structure."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from torch.utils import _pytree as pytree


def leaves_with_paths(value: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[pytree.KeyPath, Any]]:
    """The values in a structure, each with the keys that lead to it.

    torch takes classes that are registered without keys, until it is asked for a path. Here values in such a class go
    by its own keys or fields, where these hold them, and else by their number.

    Args:
        value: The structure.
        is_leaf: What not to look into.
    """
    kind = pytree._get_node_type(value)
    if (is_leaf is not None and is_leaf(value)) or kind not in pytree.SUPPORTED_NODES:
        return [((), value)]
    node = pytree.SUPPORTED_NODES[kind]
    if node.flatten_with_keys_fn is not None:
        parts = list(node.flatten_with_keys_fn(value)[0])
    else:
        values = list(node.flatten_fn(value)[0])
        parts = list(zip(_keys_of(value, values), values, strict=True))
    return [((key, *path), leaf) for key, part in parts for path, leaf in leaves_with_paths(part, is_leaf)]


def _keys_of(owner: Any, values: list[Any]) -> list[pytree.KeyEntry]:
    """Keys of the values that an object was taken apart into."""
    if isinstance(owner, dict) and _are_same(owner.values(), values):
        return [pytree.MappingKey(key) for key in owner]
    if dataclasses.is_dataclass(owner):
        names = [field.name for field in dataclasses.fields(owner)]
        if _are_same((getattr(owner, name, None) for name in names), values):
            return [pytree.GetAttrKey(name) for name in names]
    return [pytree.SequenceKey(index) for index in range(len(values))]


def _are_same(some: Iterable[Any], others: list[Any]) -> bool:
    found = list(some)
    return len(found) == len(others) and all(a is b for a, b in zip(found, others, strict=True))


def key_text(key: Any) -> str:
    """A key of a path without brackets: a name, or a number."""
    if isinstance(key, pytree.GetAttrKey):
        return key.name
    return str(key.key if isinstance(key, pytree.MappingKey) else key.idx)
