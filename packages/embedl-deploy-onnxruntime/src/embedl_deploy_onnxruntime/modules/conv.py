"""Convolutions with what ONNX Runtime computes in the same kernel: batch norm, and a rectifier.

In INT8 the rectifier is no operation at all: the output's range starts at 0, so that its rounding cuts off what is
below (and above 6, for ReLU6). In float32 the runtime fuses it into the convolution.
"""

import torch
from torch import nn

from embedl_deploy.modules import BatchNorm, Convolution, FusedConv, is_homogeneous

#: Activations that the range of an output with zero point cuts off by itself.
Rectifier = nn.ReLU | nn.ReLU6


class OrtConv(FusedConv):
    """``convolution → [batch norm] → [ReLU or ReLU6]``, in one to three dimensions, transposed or not."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: Convolution, bn: BatchNorm | None = None, act: Rectifier | None = None) -> None:
        super().__init__(conv, bn)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) to (N, C', ...)."""
        y = self.convolve(x)
        return y if self.act is None else self.act(y)

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In batch norm or convolution, through a ReLU."""
        if self.act is not None and not is_homogeneous(self.act):
            return f"{type(self.act).__name__} does not let factors through"
        self.scale_convolution(factors)
        return None
