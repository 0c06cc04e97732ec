"""Convolutions with what the engine computes in the same pass: batch norm and ReLU."""

import torch
from torch import nn

from embedl_deploy.modules import FusedConv


class SensaiConvBN(FusedConv):
    """``Conv2d → [BatchNorm2d]``."""

    inputs_to_quantize = frozenset({0})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.convolve(x)

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In batch norm or convolution."""
        self.scale_convolution(factors)
        return None


class SensaiConvBNReLU(FusedConv):
    """``Conv2d → [BatchNorm2d] → ReLU``."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, relu: nn.ReLU) -> None:
        super().__init__(conv, bn)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.relu(self.convolve(x))  # type: ignore[no-any-return]  # modules are untyped callables

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In batch norm or convolution; a ReLU lets positive factors through."""
        self.scale_convolution(factors)
        return None
