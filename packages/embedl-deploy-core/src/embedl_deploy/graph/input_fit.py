"""Compares inputs with those that a graph was captured with."""

from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import InputError
from embedl_deploy.graph.inputs import bind_inputs
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.validation.quoting import quoted


def misfit(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """What is different about inputs, in words; empty if nothing is, or nothing is known.

    The first dimension is taken for the batch, and may be of any size. Others may be, too, in many models: this
    explains a failure, and is not a reason to refuse inputs.
    """
    if not isinstance(model, fx.GraphModule):
        return ""
    try:
        values = bind_inputs(model, args, kwargs)
    except InputError as error:
        return str(error)
    nodes = model.graph.find_nodes(op="placeholder")
    found = [_difference(node, value) for node, value in zip(nodes, values, strict=False)]
    return "; ".join(difference for difference in found if difference)


def _difference(node: fx.Node, value: Any) -> str:
    shape, dtype = shape_of(node), dtype_of(node)
    if shape is None or dtype is None:
        return ""
    fits = (
        isinstance(value, torch.Tensor)
        and value.dtype == dtype
        and value.dim() == len(shape)
        and tuple(value.shape[1:]) == tuple(shape[1:])
    )
    if fits:
        return ""
    sizes = ", ".join(["N", *map(str, shape[1:])]) if shape else ""
    said = f"{node.target} is {quoted(value)}; expected {str(dtype).removeprefix('torch.')}[{sizes}]"
    if isinstance(value, torch.Tensor) and tuple(value.shape[2:]) == tuple(shape[1:]) and value.dim() == len(shape) + 1:
        said += " (one dimension more: is this from a DataLoader over whole batches? Then set its batch_size to None)"
    return said
