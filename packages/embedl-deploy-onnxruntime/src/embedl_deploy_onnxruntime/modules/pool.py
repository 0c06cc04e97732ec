"""Global average pooling, written as the one operator that the runtime has an integer kernel for."""

import torch
from torch import nn

from embedl_deploy.modules import FusedModule


class OrtGlobalAveragePool(FusedModule):
    """``AdaptiveAvgPool2d(1)``: QLinearGlobalAveragePool."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, 1, 1)."""
        return self.pool(x)  # type: ignore[no-any-return]  # modules are untyped callables
