"""Convolutions and matrix products as matrix products over samples."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.modules import PaddedConv2d
from embedl_deploy.modules.convolution import is_transposed

_Conv = nn.modules.conv._ConvNd


def groups_of(operator: nn.Module) -> int:
    """Independent groups of channels."""
    return operator.groups if isinstance(operator, _Conv) else 1


def is_supported(operator: nn.Module | None) -> bool:
    """Whether :func:`samples` knows the operator."""
    if isinstance(operator, _Conv):
        return operator.padding_mode == "zeros" and not is_transposed(operator)
    return isinstance(operator, nn.Linear)


def grouped(weight: torch.Tensor, operator: nn.Module) -> torch.Tensor:
    """A weight as (G, O/G, K), K the inputs of one output."""
    return weight.reshape(groups_of(operator), weight.shape[0] // groups_of(operator), -1)


def samples(x: torch.Tensor, operator: nn.Module) -> Iterator[torch.Tensor]:
    """The inputs of the operator's outputs, (G, K, L) for L outputs, a part of the batch at a time."""
    if not isinstance(operator, _Conv):
        yield x.reshape(-1, x.shape[-1]).T[None]
        return
    sides: Any = operator.sides if isinstance(operator, PaddedConv2d) else operator._reversed_padding_repeated_twice
    x = F.pad(x, sides)
    for image in x[:, None]:
        columns = _columns(image, operator)
        yield columns.reshape(groups_of(operator), -1, columns.shape[-1])


def _columns(image: torch.Tensor, operator: Any) -> torch.Tensor:
    """What each output position sees of a padded image, (1, C, ...), as (1, C·k, L)."""
    if len(operator.kernel_size) == 2 and operator.kernel_size != (1, 1):
        return F.unfold(image, operator.kernel_size, operator.dilation, 0, operator.stride)  # faster than what follows
    dims = len(operator.kernel_size)
    settings = zip(operator.kernel_size, operator.dilation, operator.stride, strict=True)
    for dim, (size, dilation, stride) in enumerate(settings, start=2):
        image = image.unfold(dim, (size - 1) * dilation + 1, stride)[..., ::dilation]
    kernel, places = range(2 + dims, 2 + 2 * dims), range(2, 2 + dims)
    return image.permute(0, 1, *kernel, *places).flatten(2 + dims).flatten(1, 1 + dims)
