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
