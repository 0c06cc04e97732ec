"""Open dimensions in the notation of ``torch.export``: structures like those of the inputs, read tensor by tensor."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from embedl_deploy.errors import InputError
from embedl_deploy.validation.quoting import quoted

#: By dimension of a tensor, what ``torch.export`` takes for it.
Dimensions = dict[int, Any]


def dimensions_of(where: str, value: Any, shape: Any) -> list[Dimensions]:
    """The dimensions of each leaf of a value."""
    leaves = pytree.tree_leaves(value)
    if shape is None:
        return [{} for _ in leaves]
    if isinstance(value, torch.Tensor):
        return [_of_tensor(where, value, shape)]
    if isinstance(value, dict) and isinstance(shape, dict):
        unknown = [key for key in shape if key not in value]
        if unknown:
            raise InputError(
                f"dynamic_shapes of the input {where} names {unknown[0]!r}; it has {', '.join(map(repr, value))}."
            )
        return [found for key in value for found in dimensions_of(f"{where}[{key!r}]", value[key], shape.get(key))]
    children = _children(value)
    if children is None or not isinstance(shape, Sequence) or len(shape) != len(children):
        raise InputError(
            f"dynamic_shapes has {quoted(shape)} for the input {where}, which is {quoted(value)}; expected a structure "
            "like that of the input, with a dictionary from dimensions to torch.export.Dim for each tensor."
        )
    parts = enumerate(zip(children, shape, strict=True))
    return [found for at, (part, one) in parts for found in dimensions_of(f"{where}[{at}]", part, one)]


def _children(value: Any) -> list[Any] | None:
    """What a structure holds; ``None`` if it is none."""
    if isinstance(value, (tuple, list)):
        return list(value)
    node = pytree.SUPPORTED_NODES.get(type(value))
    if node is None:
        return None
    flatten: Callable[[Any], tuple[list[Any], Any]] = node.flatten_fn
    return list(flatten(value)[0])


def _of_tensor(where: str, value: torch.Tensor, shape: Any) -> Dimensions:
    if isinstance(shape, (tuple, list)) and len(shape) == value.dim():
        shape = dict(enumerate(shape))
    if not isinstance(shape, dict):
        raise InputError(
            f"dynamic_shapes has {quoted(shape)} for the input {where}, a tensor of {value.dim()} dimensions; expected "
            "a dictionary from dimensions to torch.export.Dim, such as {0: torch.export.Dim('batch')}."
        )
    wrong = [at for at in shape if not isinstance(at, int) or not 0 <= at < value.dim()]
    if wrong:
        raise InputError(f"dynamic_shapes names dimension {wrong[0]!r} of the input {where}, which has {value.dim()}.")
    fixed = torch.export.Dim.STATIC
    return {at: dim for at, dim in shape.items() if dim is not None and not isinstance(dim, int) and dim != fixed}
