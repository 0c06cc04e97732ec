"""Casts operands of different types to one type, as ``torch.autocast`` would.

A model that makes coordinates in float32 has, once it is in float16, products and samplers of one operand in each type,
which torch refuses; it was written for ``torch.autocast``. So that it can be traced in another type, and its graph
converted, the casts are made that autocast would make:

    products          in the model's type: ``conv(coordinates)`` is ``conv(coordinates.to(model's type))``
    samplers, norms   in the wider of the two, as the author has it
    what is written   in the type of what it is written to

What takes operands of two types, such as a sum, is left alone.
"""

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

_PRODUCTS = frozenset(
    {
        *("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        *("linear", "bilinear", "matmul", "__matmul__", "__rmatmul__", "mm", "mv", "bmm", "dot", "einsum"),
        *("addmm", "addmv", "addbmm", "baddbmm", "tensordot", "prelu", "scaled_dot_product_attention"),
    }
)
_WIDER = frozenset(
    {
        *("grid_sample", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "cross", "cdist", "lerp"),
        *("layer_norm", "group_norm", "batch_norm", "instance_norm"),
    }
)
_WRITING = frozenset(
    {
        *("__setitem__", "index_put", "index_copy", "index_add", "masked_scatter"),
        *("scatter", "scatter_add", "scatter_reduce", "slice_scatter", "select_scatter"),
    }
)
#: Layers of torch.nn that take an input of the type of their weights alone.
_LAYERS = (
    *(nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.PReLU, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
    *(nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm),
)


class OperandsOfOneType(TorchFunctionMode):
    """Within it calls of torch's functions and operators whose operands meet in two types make casts.

    Args:
        dtype: The model's type, which one of the two has to be.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        wanted = self._type_for(func, args, kwargs)
        if wanted is not None:
            args, kwargs = self._converted(wanted, args, kwargs)
        return func(*args, **kwargs)

    def cast(self, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """An operand in another type."""
        return value.to(dtype)

    def of_layer(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a layer of torch.nn, in the model's type if its weights are and it takes no other."""
        floats = _floats(args, kwargs)
        own = {tensor.dtype for tensor in layer.parameters() if tensor.is_floating_point()}
        if not isinstance(layer, _LAYERS) or own != {self.dtype} or _is_autocast(floats):
            return args, kwargs
        wide = any(value.dtype.itemsize > self.dtype.itemsize for value in floats)
        return self._converted(self.dtype, args, kwargs) if wide else (args, kwargs)

    def _type_for(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.dtype | None:
        """The type that the operands of a call are to be of; ``None`` if they may stay as they are."""
        name = getattr(func, "__name__", "").partition(".")[0]
        written = name in _WRITING or name.removesuffix("_") in _WRITING
        if not written and name not in _PRODUCTS and name not in _WIDER:
            return None
        floats = _floats(args, kwargs)
        types = {value.dtype for value in floats}
        if len(types) < 2 or self.dtype not in types or _is_autocast(floats):
            return None
        if written:
            return floats[0].dtype if floats[0] is args[0] else None
        return self.dtype if name in _PRODUCTS else max(types, key=lambda dtype: dtype.itemsize)

    def _converted(
        self, dtype: torch.dtype, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def converted(value: torch.Tensor) -> torch.Tensor:
            return self.cast(value, dtype) if value.is_floating_point() and value.dtype is not dtype else value

        args, kwargs = pytree.tree_map_only(torch.Tensor, converted, (args, kwargs))
        return args, kwargs


def _floats(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves((args, kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _is_autocast(values: list[torch.Tensor]) -> bool:
    """Whether ``torch.autocast`` is on and sees to it."""
    return any(torch.is_autocast_enabled(value.device.type) for value in values)
