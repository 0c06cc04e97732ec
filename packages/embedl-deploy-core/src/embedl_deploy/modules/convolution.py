"""Convolutions of any dimension, transposed ones too: where their weights have the output channels.

    convolution              (out_channels, in_channels / groups, *kernel)
    transposed convolution   (in_channels, out_channels / groups, *kernel), the inputs group by group

What works on one output channel after another works on the rows of a weight, which are in the first layout.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

#: The transposed convolutions, by the number of dimensions.
_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def is_transposed(operator: nn.Module | None) -> bool:
    """Whether a weight's output channels are another dimension than its first."""
    return isinstance(operator, nn.modules.conv._ConvTransposeNd)


def rows_of(weight: torch.Tensor, operator: nn.Module) -> torch.Tensor:
    """A weight, or anything of its shape, as (out_channels, in_channels / groups, *kernel).

    A view where the weight has that layout; that of a ``Linear`` is the weight.
    """
    if not isinstance(operator, nn.modules.conv._ConvTransposeNd):
        return weight
    groups, kernel = operator.groups, weight.shape[2:]
    by_group = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], *kernel)
    return by_group.transpose(1, 2).reshape(groups * weight.shape[1], weight.shape[0] // groups, *kernel)


def weight_of_rows(rows: torch.Tensor, operator: nn.Module) -> torch.Tensor:
    """The inverse of :func:`rows_of`."""
    if not isinstance(operator, nn.modules.conv._ConvTransposeNd):
        return rows
    groups, kernel = operator.groups, rows.shape[2:]
    by_group = rows.reshape(groups, rows.shape[0] // groups, rows.shape[1], *kernel)
    return by_group.transpose(1, 2).reshape(groups * rows.shape[1], rows.shape[0] // groups, *kernel)


def scaled_rows(weight: torch.Tensor, factors: torch.Tensor, operator: nn.Module) -> torch.Tensor:
    """A weight with each output channel multiplied by its factor, (out_channels,)."""
    factors = factors.reshape(-1, *(1,) * (weight.dim() - 1))
    return weight_of_rows(rows_of(weight, operator) * factors, operator)


def convolve_with(operator: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What a convolution computes of (N, C, ...), with another weight and bias than its own."""
    y: torch.Tensor
    if not is_transposed(operator):
        y = operator._conv_forward(x, weight, bias)
        return y
    settings = (operator.stride, operator.padding, operator.output_padding, operator.groups, operator.dilation)
    y = _TRANSPOSED[weight.dim() - 2](x, weight, bias, *settings)
    return y
