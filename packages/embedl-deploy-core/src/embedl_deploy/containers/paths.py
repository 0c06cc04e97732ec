"""Where values lie in a structure."""

from typing import Any

from torch.utils import _pytree as pytree


def leaves_with_paths(value: Any) -> list[tuple[pytree.KeyPath, Any]]:
    """The values in a structure, each with the keys that lead to it.

    torch takes classes that are registered without keys, until it is asked for a path; then values go by their number.
    """
    try:
        return list(pytree.tree_leaves_with_path(value))
    except ValueError:
        return [((pytree.SequenceKey(index),), leaf) for index, leaf in enumerate(pytree.tree_leaves(value))]
