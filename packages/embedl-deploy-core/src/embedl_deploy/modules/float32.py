"""Parts of a model that stay in float32 when the model is converted to float16 or bfloat16, and casts to and from it.

In a model in float32 all of them do nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

#: Types that are cast to float32.
_NARROW = (torch.float16, torch.bfloat16)
#: Subclasses by class: one for each, so that two modules of a class still have one class.
_FLOAT32_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


class KeepsFloat32(nn.Module):
    """A module whose parameters and buffers move with the model to other devices, but not to a type of 16 bits."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "KeepsFloat32":
        def kept(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            if moved.dtype in _NARROW and tensor.dtype not in _NARROW:
                return tensor.to(moved.device)
            return moved

        super()._apply(kept, recurse)  # type: ignore[no-untyped-call]  # of torch
        return self


def keep_float32(module: nn.Module) -> None:
    """Let a module's parameters and buffers stay in float32, whatever type the model is converted to.

    The module becomes one of a subclass of its class, as torch makes a parametrized module one: whoever looks for the
    class finds it, and paths stay. Changes the module, whose parameters no other part of the model may have.
    """
    if not isinstance(module, KeepsFloat32):
        module.__class__ = _float32_class(type(module))


def _float32_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The subclass of a class whose modules stay in float32."""
    if kind not in _FLOAT32_CLASSES:

        def reduce(self: nn.Module, _protocol: Any) -> Any:
            return _of_float32_class, (kind,), dict(vars(self))

        named = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce_ex__": reduce}
        _FLOAT32_CLASSES[kind] = type(kind.__name__, (kind, KeepsFloat32), named)
    return _FLOAT32_CLASSES[kind]


def _of_float32_class(kind: type[nn.Module]) -> nn.Module:
    """An empty module, for copies and pickles to fill."""
    made = _float32_class(kind)
    return made.__new__(made)


class Float32Tensor(KeepsFloat32):
    """A parameter or constant that stays in float32.

    Args:
        value: The tensor; of a parameter the values are copied.
    """

    value: torch.Tensor

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        if isinstance(value, nn.Parameter):
            self.value = nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
        else:
            self.register_buffer("value", value.detach().clone())

    def forward(self) -> torch.Tensor:
        """The tensor."""
        return self.value


class ToFloat32(nn.Module):
    """A cast of tensors in float16 and bfloat16 to float32; all else stays as it is."""

    def forward(self, value: Any) -> Any:
        """``value``, a tensor or a structure of tensors."""
        return pytree.tree_map_only(torch.Tensor, lambda x: x.float() if x.dtype in _NARROW else x, value)


class ToModelType(nn.Module):
    """A cast of tensors in float32 to the type that the model is in; all else stays as it is."""

    like: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, value: Any) -> Any:
        """``value``, a tensor or a structure of tensors."""
        kind = self.like.dtype
        if kind not in _NARROW:
            return value
        return pytree.tree_map_only(torch.Tensor, lambda x: x.to(kind) if x.dtype is torch.float32 else x, value)
