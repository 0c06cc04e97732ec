"""Metadata of a node: shape and dtype of its value, and the module that it comes from."""

from typing import Any

import torch
from torch import fx
from torch.fx.passes.shape_prop import TensorMetadata

#: ``node.meta`` entry: why no pattern has taken a node, as the plan has it: a ``NotTaken`` of ``plan.causes``.
NOT_TAKEN = "embedl_deploy.not_taken"

#: What torch.export notes as the path of a node that it cannot place.
_NO_STACK = "_empty_nn_module_stack_from_metadata_hook"


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of a node's value if shapes were propagated and it is one tensor of known sizes, else ``None``.

    In a graph inside a graph, where they are not propagated, torch.export's own notes may have sizes that are open.
    """
    meta = node.meta.get("tensor_meta")
    value = meta if isinstance(meta, TensorMetadata) else node.meta.get("val")  # torch.export leaves fake tensors here
    if isinstance(value, (TensorMetadata, torch.Tensor)) and all(isinstance(size, int) for size in value.shape):
        return tuple(value.shape)
    return None


def dtype_of(node: fx.Node) -> torch.dtype | None:
    """The dtype of a node's value if shapes were propagated and it is one tensor, else ``None``."""
    meta = node.meta.get("tensor_meta")
    if isinstance(meta, TensorMetadata):
        return meta.dtype
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def module_path_of(node: fx.Node) -> str:
    """The path of the innermost module whose forward a node comes from, ``""`` for the model itself or if not known."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    return next((str(path) for path, _ in reversed(list(stack.values())) if path and path != _NO_STACK), "")
