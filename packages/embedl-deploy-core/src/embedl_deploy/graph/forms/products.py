"""Convolutions, transposed convolutions, products with a matrix, and tables."""

from typing import Any, TypeVar

import torch
from torch import nn

from embedl_deploy.errors import InputError
from embedl_deploy.graph.forms.form import Call, Form, NoModuleFormError, set_tensor
from embedl_deploy.validation.checked import checked

ModuleT = TypeVar("ModuleT", bound=nn.Module)
_CONVOLUTIONS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: tuple[Any, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _holding(module: ModuleT, weight: torch.Tensor, bias: torch.Tensor | None) -> ModuleT:
    set_tensor(module, "weight", weight)
    set_tensor(module, "bias", bias)
    return module


@checked
def linear_with(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A ``Linear`` that holds these very tensors.

    Args:
        weight: (out_features, in_features).
        bias: (out_features,) or ``None``.

    Raises:
        InputError: The weight is not a matrix.
    """
    if weight.dim() != 2:
        raise InputError(f"weight has the shape {list(weight.shape)}; expected [out_features, in_features].")
    return _holding(nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta"), weight, bias)


@checked
def conv2d_with(weight: torch.Tensor, bias: torch.Tensor | None, *, groups: int = 1, **settings: Any) -> nn.Conv2d:
    """A ``Conv2d`` that holds these very tensors.

    Args:
        weight: (out_channels, in_channels / groups, height, width).
        bias: (out_channels,) or ``None``.
        groups: Number of groups.
        **settings: ``stride``, ``padding`` and ``dilation`` as for ``nn.Conv2d``.

    Raises:
        InputError: The weight is not one of a convolution with these groups, or there is no such setting.
    """
    if weight.dim() != 4:
        raise InputError(f"weight has the shape {list(weight.shape)}; expected [out, in / groups, height, width].")
    if groups < 1 or weight.shape[0] % groups:
        raise InputError(f"groups is {groups}; expected a number that divides the {weight.shape[0]} output channels.")
    unknown = settings.keys() - {"stride", "padding", "dilation"}
    if unknown:
        raise InputError(f"settings hold {', '.join(sorted(unknown))}; expected stride, padding and dilation.")
    module = conv_with(weight, bias, groups=groups, **settings)
    assert isinstance(module, nn.Conv2d)
    return module


def conv_with(
    weight: torch.Tensor, bias: torch.Tensor | None, *, groups: int = 1, transposed: bool = False, **settings: Any
) -> nn.Module:
    """A convolution of the dimension that its weight has, holding these very tensors.

    Args:
        weight: (out_channels, in_channels / groups, ...); (in_channels, out_channels / groups, ...) if transposed.
        bias: (out_channels,) or ``None``.
        groups: Number of groups.
        transposed: Whether it is a transposed convolution.
        **settings: ``stride``, ``padding``, ``dilation`` and, for a transposed one, ``output_padding``.
    """
    dimensions = weight.dim() - 2
    if dimensions not in (1, 2, 3):
        raise NoModuleFormError("weight")
    module_class = (_TRANSPOSED if transposed else _CONVOLUTIONS)[dimensions - 1]
    channels = (weight.shape[0], weight.shape[1] * groups)
    inside, out = channels if transposed else channels[::-1]
    sizes = {name: _sizes(value, dimensions) for name, value in settings.items()}
    module: nn.Module = module_class(
        inside, out, tuple(weight.shape[2:]), groups=groups, bias=False, device="meta", **sizes
    )
    return _holding(module, weight, bias)


def _sizes(value: Any, dimensions: int) -> Any:
    """One size for each dimension; padding by name stays."""
    if isinstance(value, str):
        return value
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


def _linear(call: Call) -> nn.Module:
    return linear_with(call.parameter("weight", 2), call.tensor("bias"))


def _bilinear(call: Call) -> nn.Module:
    weight, bias = call.parameter("weight", 3), call.tensor("bias")
    out, first, second = weight.shape
    return _holding(nn.Bilinear(first, second, out, bias=False, device="meta"), weight, bias)


def _convolution(call: Call) -> nn.Module:
    transposed = "transpose" in call.operation or bool(call.setting("transposed", False))
    dimensions = call.operation[-2:-1]
    weight = call.parameter("weight", int(dimensions) + 2) if dimensions.isdecimal() else call.tensor("weight")
    if weight is None:
        raise NoModuleFormError("weight")
    names = ["stride", "padding", "dilation", *(["output_padding"] if transposed else [])]
    settings = {name: call.setting(name) for name in names}
    return conv_with(weight, call.tensor("bias"), groups=call.setting("groups"), transposed=transposed, **settings)


def _embedding(call: Call) -> nn.Module:
    call.require_defaults("max_norm")
    weight, padding = call.parameter("weight", 2), call.setting("padding_idx")
    if "indices" in call.values and padding == -1:
        padding = None  # what the operator has where there is none
    module = nn.Embedding(
        weight.shape[0],
        weight.shape[1],
        padding_idx=padding,
        norm_type=call.setting("norm_type", 2.0),
        scale_grad_by_freq=call.setting("scale_grad_by_freq"),
        sparse=call.setting("sparse"),
        device="meta",
    )
    set_tensor(module, "weight", weight)
    return module


FORMS = (
    Form(("linear",), nn.Linear, _linear),
    Form(("bilinear",), nn.Bilinear, _bilinear, ("input1", "input2")),
    *(
        Form((f"conv{transposed}{n}d",), module_class, _convolution)
        for transposed, classes in (("", _CONVOLUTIONS), ("_transpose", _TRANSPOSED))
        for n, module_class in enumerate(classes, start=1)
    ),
    Form(("convolution",), nn.modules.conv._ConvNd, _convolution),
    # The function calls the indices "input", the operator "indices".
    Form(("embedding",), nn.Embedding, _embedding, ("input|indices",)),
)
