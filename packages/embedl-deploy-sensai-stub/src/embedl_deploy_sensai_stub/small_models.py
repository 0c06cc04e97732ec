"""Small models for the examples of patterns."""

from collections.abc import Callable

import torch
from torch import nn


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm in evaluation mode with weights and statistics of its own, so that it is not the identity."""
    bn = nn.BatchNorm2d(channels).eval()
    with torch.no_grad():
        for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
            assert tensor is not None  # an ordinary batch norm has all four
            tensor.uniform_(0.5, 1.5)
    return bn


def image(*, channels: int = 4, side: int = 8) -> tuple[torch.Tensor]:
    """Example inputs: a batch of two maps, (2, C, side, side)."""
    return (torch.randn(2, channels, side, side),)


class Applied(nn.Module):
    """A model that is a function of its input and of one module."""

    def __init__(
        self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor], module: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.function = function
        self.module = nn.Identity() if module is None else module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the function gives."""
        return self.function(self.module, x)
