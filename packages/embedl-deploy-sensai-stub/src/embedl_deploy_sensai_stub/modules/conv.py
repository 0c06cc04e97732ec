"""Convolutions with what the engine computes in the same pass: batch norm and ReLU.

The original modules are kept and called in order, so training works; the engine's compiler folds batch norm,
w' = w · γ/√(σ²+ε) and b' = (b − μ) · γ/√(σ²+ε) + β, once its statistics are fixed.
"""

import torch
from torch import nn

from embedl_deploy.modules import FusedModule, WeightFakeQuantize


class SensaiConvBN(FusedModule):
    """``Conv2d → [BatchNorm2d]``."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn
        self.weight_fake_quant = WeightFakeQuantize()

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Convolution and batch norm of (N, C, H, W), with quantized input and weight where stubs say so."""
        x = self.quantize_input(0, x)
        if self.weight_fake_quant.enabled:
            x = self.conv._conv_forward(x, self.weight_fake_quant(self.conv.weight), self.conv.bias)
        else:
            x = self.conv(x)
        return x if self.bn is None else self.bn(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.convolve(x)


class SensaiConvBNReLU(SensaiConvBN):
    """``Conv2d → [BatchNorm2d] → ReLU``."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, relu: nn.ReLU) -> None:
        super().__init__(conv, bn)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.relu(self.convolve(x))  # type: ignore[no-any-return]  # modules are untyped callables
