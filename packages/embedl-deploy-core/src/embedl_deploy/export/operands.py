"""Constants among the operands of operators: those that the type which an operator computes in does not hold."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from embedl_deploy.export.constants import Replaced, fitting, mask_value

NARROW = (torch.float16, torch.bfloat16)

#: Their scalars are not values of the type: operands of comparisons, ends of ranges.
_OTHERS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "arange", "range", "linspace", "logspace"})
#: Scalars of an operator that are not operands.
_SETTINGS = frozenset({"alpha", "beta", "eps", "p", "ord", "exponent"})

#: Operators that change a type.
CONVERSIONS = frozenset({"to", "_to_copy", "type_as"})


class FittingSlices(TorchFunctionMode):
    """Within it ``x[i] = -1e9`` is given a number of the type of ``x``; torch converts it before operators see it.

    Attributes:
        replaced: What was replaced.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[Replaced] = []

    def __torch_function__(self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call ``func``."""
        if func is torch.Tensor.__setitem__ and args[0].dtype in NARROW and isinstance(args[2], (int, float)):
            by = fitting(float(args[2]), args[0].dtype)
            if by != args[2]:
                self.replaced.append(Replaced(float(args[2]), by, "an assignment to a slice"))
                args = (*args[:2], by)
        return func(*args, **(kwargs or {}))


def fit_call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an operator that is about to be called, with constants that fit."""
    if not isinstance(func, torch._ops.OpOverload):
        return args, kwargs
    found = type_of_call(args, kwargs)
    if found is None:
        return args, kwargs
    dtype, name = found, name_of(func)

    def fitted(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() == 0 and value.is_floating_point() and value.dtype != dtype:
            return torch.full_like(value, fitting(float(value), dtype, name))
        return value

    if name in CONVERSIONS and kwargs.get("dtype") is dtype and isinstance(args[0], torch.Tensor):
        return (_converted_mask(args[0], dtype), *args[1:]), kwargs
    args, kwargs, _ = with_scalars(func, args, kwargs, dtype)
    return tuple(fitted(value) for value in args), kwargs


def _converted_mask(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is finite before a conversion stays so if it is that of a mask; an overflow remains one."""
    if not tensor.is_floating_point() or tensor.dtype is dtype:
        return tensor
    value = mask_value(tensor, dtype)
    return tensor if value is None else torch.where(tensor == value, fitting(value, dtype), tensor)


def name_of(func: Any) -> str:
    """``masked_fill`` of ``aten::masked_fill_.Scalar``."""
    name = (str(func.name()) if hasattr(func, "name") else str(func)).split("::")[-1].split(".")[0]
    return name if name.startswith("_") else name.rstrip("_")


def type_of_call(args: Any, kwargs: Any) -> torch.dtype | None:
    """The type that an operator computes in, if it is a narrow one."""
    asked = kwargs.get("dtype")
    if isinstance(asked, torch.dtype):
        return asked if asked in NARROW else None
    floats = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor) and v.is_floating_point()]
    types = {v.dtype for v in floats if v.dim() > 0} or {v.dtype for v in floats}
    return next(iter(types)) if len(types) == 1 and types <= set(NARROW) else None


def with_scalars(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Any], list[tuple[float, float]]]:
    """Arguments with the scalars among them that fit; and what was replaced by what."""
    name, replaced = name_of(func), []
    if name in _OTHERS:
        return args, kwargs, []

    def fitted(parameter: Any, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or parameter.name in _SETTINGS or not _takes_values(parameter):
            return value
        by = fitting(float(value), dtype, name)
        if by == value:
            return value
        replaced.append((float(value), by))
        return by

    schema = func._schema.arguments
    named = {parameter.name: parameter for parameter in schema}
    args = tuple(fitted(parameter, value) for parameter, value in zip(schema, args, strict=False))
    return args, {key: fitted(named[key], value) if key in named else value for key, value in kwargs.items()}, replaced


def _takes_values(parameter: Any) -> bool:
    """Whether an operator's parameter is a number of the type that it computes in, not a size or an index."""
    kind = parameter.type.getElementType() if parameter.type.kind() == "OptionalType" else parameter.type
    return kind.kind() in ("TensorType", "NumberType", "FloatType") or str(kind) == "number"
