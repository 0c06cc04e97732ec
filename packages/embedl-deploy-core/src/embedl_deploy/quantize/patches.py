"""Convolutions and matrix products as matrix products over samples."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.modules import PaddedConv2d


def groups_of(operator: nn.Module) -> int:
    """Independent groups of channels."""
    return operator.groups if isinstance(operator, nn.Conv2d) else 1


def is_supported(operator: nn.Module | None) -> bool:
    """Whether :func:`samples` knows the operator."""
    return isinstance(operator, nn.Linear) or (isinstance(operator, nn.Conv2d) and operator.padding_mode == "zeros")


def grouped(weight: torch.Tensor, operator: nn.Module) -> torch.Tensor:
    """A weight as (G, O/G, K), K the inputs of one output."""
    return weight.reshape(groups_of(operator), weight.shape[0] // groups_of(operator), -1)


def samples(x: torch.Tensor, operator: nn.Module) -> Iterator[torch.Tensor]:
    """The inputs of the operator's outputs, (G, K, L) for L outputs, a part of the batch at a time."""
    if not isinstance(operator, nn.Conv2d):
        yield x.reshape(-1, x.shape[-1]).T[None]
        return
    sides: Any = operator.sides if isinstance(operator, PaddedConv2d) else operator._reversed_padding_repeated_twice
    x = F.pad(x, sides)
    for image in x[:, None]:
        if operator.kernel_size == (1, 1):
            rows, columns = operator.stride
            columns_of = image[:, :, ::rows, ::columns].flatten(2)
        else:
            columns_of = F.unfold(image, operator.kernel_size, operator.dilation, 0, operator.stride)
        yield columns_of.reshape(groups_of(operator), -1, columns_of.shape[-1])
