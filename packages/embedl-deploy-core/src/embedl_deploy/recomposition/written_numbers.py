"""Numbers that are written in a graph: as such, as constants, and as limits of a type."""

from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.lookup import get_constant
from embedl_deploy.graph.metadata import dtype_of
from embedl_deploy.graph.operators import operation


def number_of(value: Any) -> float | None:
    """A number that is written in the graph."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, fx.Node) and operation(value) in ("full", "scalar_tensor", "lift_fresh_copy", "detach_"):
        inner = value.args[-1] if operation(value) != "lift_fresh_copy" else value.args[0]
        return number_of(inner)
    if isinstance(value, fx.Node) and value.op == "get_attr":
        constant = get_constant(value)
        fixed = (
            isinstance(constant, torch.Tensor)
            and constant.numel() == 1
            and not isinstance(constant, torch.nn.Parameter)
        )
        return float(constant) if fixed and constant.device.type != "meta" and constant.dim() == 0 else None
    return None


def lowest_of(value: Any) -> float | None:
    """``torch.finfo(dtype).min`` as it is now, where a graph asks for it, with a type of its own or the model's."""
    if not isinstance(value, fx.Node) or value.target is not getattr or value.args[1:] != ("min",):
        return None
    asked = value.args[0]
    if not isinstance(asked, fx.Node) or asked.target is not torch.finfo or not asked.args:
        return None
    dtype: Any = asked.args[0]
    if isinstance(dtype, fx.Node) and dtype.target is getattr and dtype.args[1:] == ("dtype",):
        of = dtype.args[0]
        constant = get_constant(of) if isinstance(of, fx.Node) and of.op == "get_attr" else None
        known = dtype_of(of) if isinstance(of, fx.Node) else None
        dtype = constant.dtype if isinstance(constant, torch.Tensor) else known
    return float(torch.finfo(dtype).min) if isinstance(dtype, torch.dtype) and dtype.is_floating_point else None
