"""Questions about and edits on ``torch.fx`` graphs. Knows nothing of patterns, plans or hardware."""

from embedl_deploy.graph import arguments, copies, edit, fixed_sizes, lookup, metadata, operators, settings
from embedl_deploy.graph.forms.activations import ACTIVATIONS, Activation
from embedl_deploy.graph.functional import Call, NoModuleFormError, register_form
from embedl_deploy.graph.kinds import POOLS
from embedl_deploy.graph.shapes import propagate_shapes
from embedl_deploy.validation.checked import checked

# Checked here and not where they are defined: in this package they are asked of every node, many times.
arguments_by_name = checked(arguments.arguments_by_name)
behaves_as = checked(lookup.behaves_as)
dtype_of = checked(metadata.dtype_of)
erase = checked(edit.erase)
get_constant = checked(lookup.get_constant)
get_module = checked(lookup.get_module)
has_hooks = checked(lookup.has_hooks)
is_in_place = checked(operators.is_in_place)
is_left_open = checked(fixed_sizes.is_left_open)
operation = checked(operators.operation)
owner = checked(lookup.owner)
resolve_module = checked(lookup.resolve_module)
settings_of = checked(settings.settings_of)
shape_of = checked(metadata.shape_of)
tensor_inputs = checked(arguments.tensor_inputs)
why_copy_is_needed = checked(copies.why_copy_is_needed)

__all__ = [
    "ACTIVATIONS",
    "POOLS",
    "Activation",
    "Call",
    "NoModuleFormError",
    "behaves_as",
    "dtype_of",
    "erase",
    "get_constant",
    "get_module",
    "has_hooks",
    "is_left_open",
    "operation",
    "owner",
    "propagate_shapes",
    "register_form",
    "resolve_module",
    "settings_of",
    "shape_of",
    "tensor_inputs",
    "why_copy_is_needed",
]
