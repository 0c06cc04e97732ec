"""Questions about and edits on ``torch.fx`` graphs. Knows nothing of patterns, plans or hardware."""

from embedl_deploy.graph.lookup import (
    behaves_as,
    get_constant,
    get_module,
    has_hooks,
    resolve_module,
    tensor_inputs,
)
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.shapes import dtype_of, propagate_shapes, shape_of

__all__ = [
    "behaves_as",
    "dtype_of",
    "get_constant",
    "get_module",
    "has_hooks",
    "operation",
    "propagate_shapes",
    "resolve_module",
    "shape_of",
    "tensor_inputs",
]
