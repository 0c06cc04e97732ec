"""Finds objects of unregistered classes, and explains how to register them."""

import dataclasses
from typing import Any

import torch
from torch.utils import _pytree as pytree

from embedl_deploy.containers.paths import leaves_with_paths

#: Values that are not containers.
_VALUES = (torch.Tensor, bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.layout)
_VALUES_OF_SIZES = (torch.SymInt, torch.SymFloat, torch.SymBool, torch.memory_format)


def unknown_container(value: Any, name: str) -> tuple[str, Any] | None:
    """The first object in a structure that may hold tensors and that torch does not know how to take apart.

    Args:
        value: The structure.
        name: What it is called.

    Returns:
        Its place, such as ``output['past_key_values']``, and the object; ``None`` if there is none.
    """
    for path, leaf in leaves_with_paths(value):
        if not isinstance(leaf, (*_VALUES, *_VALUES_OF_SIZES)):
            return f"{name}{pytree.keystr(path)}", leaf
    return None


def how_to_register(value: Any) -> str:
    """What makes an object's class known to torch, as the end of a sentence."""
    kind = type(value).__name__
    if dataclasses.is_dataclass(value):
        return f"torch.export.register_dataclass({kind})"
    return (
        f"torch.utils._pytree.register_pytree_node({kind}, flatten, unflatten, serialized_type_name='{kind}', "
        "flatten_with_keys_fn=with_keys), where flatten(x) gives a list of tensors and the rest, unflatten(tensors, "
        "rest) an object like x, and with_keys(x) what flatten does, each tensor in a pair behind its key, "
        "torch.utils._pytree.MappingKey(name)"
    )
