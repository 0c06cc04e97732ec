"""Softmaxes over the last axis, however they are called."""

from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.signatures import bind_call


def softmax_input(node: fx.Node) -> tuple[fx.Node, torch.dtype | None] | None:
    """What a softmax over the last axis is given, and in which dtype it is computed, if it is one."""
    dim: Any = None
    dtype: Any = None
    source: Any = node.args[0] if node.args else node.kwargs.get("input")
    if node.op == "call_module":
        module = get_module(node)
        if type(module) is not torch.nn.Softmax:
            return None
        dim = module.dim
    elif operation(node) in ("softmax", "_softmax"):
        bound = bind_call(node)
        values = {} if bound is None else bound.values
        dim, dtype, source = values.get("dim"), values.get("dtype"), values.get("input")
        if values.get("half_to_float"):
            dtype = torch.float32
    if not isinstance(source, fx.Node) or not isinstance(dim, int) or not isinstance(dtype, (torch.dtype, type(None))):
        return None
    shape = shape_of(source)
    is_last = dim == -1 or (shape is not None and dim == len(shape) - 1)
    return (source, dtype) if is_last else None
