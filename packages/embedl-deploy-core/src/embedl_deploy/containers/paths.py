"""Where values lie in a structure."""

from collections.abc import Callable
from typing import Any

from torch.utils import _pytree as pytree


def leaves_with_paths(value: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[pytree.KeyPath, Any]]:
    """The values in a structure, each with the keys that lead to it.

    torch takes classes that are registered without keys, until it is asked for a path; then values go by their number.

    Args:
        value: The structure.
        is_leaf: What not to look into.
    """
    try:
        return list(pytree.tree_leaves_with_path(value, is_leaf=is_leaf))
    except ValueError:
        leaves = pytree.tree_leaves(value, is_leaf=is_leaf)
        return [((pytree.SequenceKey(index),), leaf) for index, leaf in enumerate(leaves)]


def key_text(key: Any) -> str:
    """A key of a path without brackets: a name, or a number."""
    if isinstance(key, pytree.GetAttrKey):
        return key.name
    return str(key.key if isinstance(key, pytree.MappingKey) else key.idx)
