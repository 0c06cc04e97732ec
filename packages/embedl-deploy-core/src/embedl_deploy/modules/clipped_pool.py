"""Pooling whose window may be larger than the padded map, with a window of the map's size."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.errors import InputError
from embedl_deploy.graph.settings import settings_of
from embedl_deploy.modules.base import ConvertedModule
from embedl_deploy.validation.checked import checked

_FUNCTIONS: dict[type[nn.Module], Callable[..., torch.Tensor]] = {
    nn.AvgPool1d: F.avg_pool1d,
    nn.AvgPool2d: F.avg_pool2d,
    nn.MaxPool1d: F.max_pool1d,
    nn.MaxPool2d: F.max_pool2d,
    nn.MaxPool3d: F.max_pool3d,
}
#: Pools that take a window larger than the padded map, with ``ceil_mode``; ``AvgPool3d`` refuses it.
CLIPPED_POOLS = tuple(_FUNCTIONS)


class ClippedPool(ConvertedModule):
    """What a pool of ``torch.nn`` computes, by a window that ends where the padded map ends.

    Of a window torch takes what lies in the padded map, and divides by the size of that. So along an axis where the
    window is larger than the padded map, with ``ceil_mode``, there is one window, and one of exactly the map's size
    gives the same. It is cut to the map of each call; where a size is open in an export, it stays as it was.

    Args:
        pool: Its settings are read, and it is not kept.

    Raises:
        InputError: It is none of :data:`CLIPPED_POOLS`.
    """

    makes_new_tensor = True

    @checked
    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        if type(pool) not in _FUNCTIONS:
            expected = ", ".join(each.__name__ for each in CLIPPED_POOLS)
            raise InputError(f"ClippedPool was given a {type(pool).__name__}; expected one of {expected}.")
        self.kind = type(pool)
        self.settings = settings_of(pool)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...), or without N, to the same with pooled sizes."""
        settings: dict[str, Any] = dict(self.settings)
        kernel, stride = list(settings["kernel_size"]), list(settings["stride"])
        for axis, size in enumerate(x.shape[-len(kernel) :]):
            whole = size + 2 * settings["padding"][axis]
            if isinstance(whole, int) and kernel[axis] > whole:
                kernel[axis] = stride[axis] = whole
        settings |= {"kernel_size": kernel, "stride": stride}
        return _FUNCTIONS[self.kind](x, **settings)

    def extra_repr(self) -> str:
        """The settings of the pool."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.kind.__name__}({settings})"
