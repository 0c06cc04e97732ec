"""Numbers that a forward makes of integers: in 16 bits where the file is."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from embedl_deploy.errors import FusedModuleError
from embedl_deploy.export.operators import Plain, run_operators


class FloatsFromIntegers(TorchFunctionMode):
    """Within it what would be float32 made of integers, as in ``image.float()`` or ``image / 255``, is of another type.

    A model in float16 whose input is an image in uint8 has no float32 but what its forward makes of that input.

    Args:
        dtype: The type instead of float32.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if not isinstance(first, torch.Tensor) or first.is_floating_point() or first.is_complex():
            return func(*args, **kwargs)
        if func is torch.Tensor.float:
            return first.to(self.dtype)
        args = tuple(self._instead(value) for value in args)
        result = func(*args, **{name: self._instead(value) for name, value in kwargs.items()})
        made = isinstance(result, torch.Tensor) and result.dtype is torch.float32
        if not made or any(isinstance(value, torch.Tensor) and value.is_floating_point() for value in args):
            return result
        return result.to(self.dtype)  # of a division, for example

    def _instead(self, value: Any) -> Any:
        return self.dtype if value is torch.float32 else value


def floats_of(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype | None
) -> AbstractContextManager[Any]:
    """What to run a model in that was converted to ``dtype``: :class:`FloatsFromIntegers` if it runs with it only."""
    leaves = pytree.tree_leaves((args, kwargs))
    whole = any(isinstance(leaf, torch.Tensor) and not leaf.is_floating_point() for leaf in leaves)
    if dtype not in (torch.float16, torch.bfloat16) or not whole:
        return nullcontext()
    floats = FloatsFromIntegers(dtype)
    try:
        run_operators(model, args, kwargs, Plain())
    except (RuntimeError, FusedModuleError):  # operands of two types
        return floats
    return nullcontext()
