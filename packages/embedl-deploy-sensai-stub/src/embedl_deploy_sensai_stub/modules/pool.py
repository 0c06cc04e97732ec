"""Pooling."""

import torch
from torch import nn

from embedl_deploy.modules import FusedModule


class SensaiMaxPool(FusedModule):
    """``MaxPool2d``. It has no weight, and works on any kind of numbers."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, H // 2, W // 2)."""
        return self.pool(x)  # type: ignore[no-any-return]  # modules are untyped callables


class SensaiGlobalAveragePool(FusedModule):
    """``AdaptiveAvgPool2d(1)``: the mean of every channel's map. It has no weight."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, 1, 1)."""
        return self.pool(x)  # type: ignore[no-any-return]  # as above
