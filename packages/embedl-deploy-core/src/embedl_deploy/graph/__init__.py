"""Questions about and edits on ``torch.fx`` graphs. Knows nothing of patterns, plans or hardware."""

from embedl_deploy.graph.functional import Call, NoModuleFormError, register_form
from embedl_deploy.graph.lookup import (
    behaves_as,
    get_constant,
    get_module,
    has_hooks,
    resolve_module,
    tensor_inputs,
)
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.settings import settings_of
from embedl_deploy.graph.shapes import propagate_shapes

__all__ = [
    "Call",
    "NoModuleFormError",
    "behaves_as",
    "dtype_of",
    "get_constant",
    "get_module",
    "has_hooks",
    "operation",
    "propagate_shapes",
    "register_form",
    "resolve_module",
    "settings_of",
    "shape_of",
    "tensor_inputs",
]
