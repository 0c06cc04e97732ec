"""Computes the outputs of ``torch.nn`` layers on fake tensors directly, which makes tracing much faster.

A layer is told of only where its class and its input leave no doubt; otherwise it is to be called.
"""

from typing import Any

import torch
from torch import nn

from embedl_deploy.graph.forms.activations import ACTIVATIONS
from embedl_deploy.graph.lookup import has_hooks

#: Activations whose result has the shape, strides and type of the input.
_LIKE_INPUT = frozenset(each.module_class for each in ACTIVATIONS if each.elementwise and each.keeps_layout)
#: Batch norms, and of how many dimensions their inputs are.
_BATCH_NORMS: dict[type[nn.Module], tuple[int, ...]] = {
    nn.BatchNorm1d: (2, 3),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (5,),
}


def result_of_leaf(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """What a layer gives for an input: a tensor of the right shape, strides, type and device.

    Args:
        module: The layer.
        args: What it is called with; fake tensors.
        kwargs: Keyword arguments.

    Returns:
        The tensor, which may be the input; ``None`` if the layer has to be called.
    """
    if isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerEncoder)):
        return _of_encoder(module, *args, **kwargs)
    if kwargs or len(args) != 1 or not isinstance(args[0], torch.Tensor):
        return None
    if has_hooks(module) or "forward" in vars(module) or getattr(module, "inplace", False):
        return None
    x, kind = args[0], type(module)
    if isinstance(module, nn.Dropout) and kind is nn.Dropout:
        return None if module.training else x
    if kind in _LIKE_INPUT and not module._parameters:
        return torch.empty_like(x) if x.is_floating_point() else None
    if not _is_of_one_type(module, x):
        return None
    if isinstance(module, nn.Linear) and kind is nn.Linear:
        takes = x.dim() > 1 and _is(x.shape[-1], module.in_features)
        return x.new_empty((*x.shape[:-1], module.out_features)) if takes else None
    if isinstance(module, nn.LayerNorm) and kind is nn.LayerNorm:
        shape = module.normalized_shape
        takes = x.dim() >= len(shape) and all(map(_is, x.shape[-len(shape) :], shape))
        return torch.empty_like(x, memory_format=torch.contiguous_format) if takes else None
    if kind in _BATCH_NORMS and not module.training:
        return x if x.dim() in _BATCH_NORMS[kind] and _is(x.shape[1], module.num_features) else None
    return None


def _of_encoder(module: nn.Module, src: Any = None, *masks: Any, **named: Any) -> torch.Tensor | None:
    """What an encoder gives with a mask, whose values it looks at: fake tensors have none."""
    if not any(isinstance(mask, torch.Tensor) for mask in (*masks, *named.values())):
        return None
    layers = list(module.layers) if isinstance(module, nn.TransformerEncoder) else [module]
    if type(module) not in (nn.TransformerEncoder, nn.TransformerEncoderLayer) or any(map(has_hooks, module.modules())):
        return None
    if not isinstance(src, torch.Tensor) or src.dim() not in (2, 3) or not src.is_floating_point():
        return None
    for layer in layers:
        if not isinstance(layer, nn.TransformerEncoderLayer) or type(layer) is not nn.TransformerEncoderLayer:
            return None
        weight = layer.linear1.weight
        if weight.dtype is not src.dtype or not _is(src.shape[-1], weight.shape[1]):
            return None
    return torch.empty_like(src, memory_format=torch.contiguous_format) if layers else None


def _is(size: Any, number: Any) -> bool:
    """Whether a size is known, and this one; to ask an open one would fix it."""
    return isinstance(size, int) and bool(size == number)


def _is_of_one_type(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether a layer's own tensors are of the type of its input, and where it is."""
    own = [tensor for table in (module._parameters, module._buffers) for tensor in table.values() if tensor is not None]
    return all(
        tensor.device == x.device and (tensor.dtype is x.dtype or not tensor.is_floating_point()) for tensor in own
    )
