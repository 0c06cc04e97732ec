"""What a forward makes in float32, in a file of 16 bits: numbers made of integers, operands that meet such."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from embedl_deploy.capture.operand_types import OperandsOfOneType
from embedl_deploy.errors import FusedModuleError
from embedl_deploy.export.operators import Plain, run_operators


class CastsBeforeQuantizers(OperandsOfOneType):
    """Within it operands that meet in two types are cast; one that is quantized before it is, as compilers want it.

    Of ``conv(fake_quantize(coordinates))`` becomes ``conv(fake_quantize(coordinates.to(dtype)))``.

    Args:
        dtype: The type of 16 bits.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self._quantized = WeakIdKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if func is torch.ops.embedl_deploy.fake_quantize.default and args[0].dtype is not self.dtype:
            self._quantized[result] = (args, kwargs or {})
        return result

    def cast(self, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """An operand in another type, on the grid on which it was."""
        if dtype is not self.dtype or value not in self._quantized:
            return super().cast(value, dtype)
        args, kwargs = self._converted(dtype, *self._quantized[value])
        result: torch.Tensor = torch.ops.embedl_deploy.fake_quantize.default(*args, **kwargs)
        return result


class FloatsFromIntegers(CastsBeforeQuantizers):
    """Within it what would be float32 made of integers, as in ``image.float()`` or ``image / 255``, is of another type.

    A model in float16 whose input is an image in uint8 has no float32 but what its forward makes of that input.

    Args:
        dtype: The type instead of float32.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if not isinstance(first, torch.Tensor) or first.is_floating_point() or first.is_complex():
            return super().__torch_function__(func, types, args, kwargs)
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
    """What to run a model in that was converted to ``dtype``, by whose operators operands of one type are needed.

    :class:`FloatsFromIntegers` if the model is given integers and does not run without.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return nullcontext()
    leaves = pytree.tree_leaves((args, kwargs))
    if any(isinstance(leaf, torch.Tensor) and not leaf.is_floating_point() for leaf in leaves):
        try:
            run_operators(model, args, kwargs, Plain())
        except (RuntimeError, FusedModuleError):  # operands of two types
            return FloatsFromIntegers(dtype)
    return CastsBeforeQuantizers(dtype)
