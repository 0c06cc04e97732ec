"""Conversions of a tensor to another type."""

import torch
from torch import fx

from embedl_deploy.graph.operators import operation

#: Methods and operators that convert to the type that they are named after.
NAMED_CASTS = {
    "float": torch.float32,
    "double": torch.float64,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
}
#: Operations that convert a tensor, to a type that is given or in their name.
CASTS = frozenset({"to", "type", "_to_copy", "type_as", *NAMED_CASTS})


def is_cast(node: fx.Node) -> bool:
    """Whether a node converts its first input to another type, or to another device."""
    return operation(node) in CASTS


def written_type(node: fx.Node) -> torch.dtype | None:
    """The type that a conversion names, as its author wrote it; ``None`` where it is that of another tensor."""
    literals = [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, torch.dtype)]
    return NAMED_CASTS.get(str(operation(node))) or (literals[0] if len(literals) == 1 else None)
