"""Average pooling."""

import torch
from torch import nn

from embedl_deploy.modules import FusedModule


class OrtAveragePool(FusedModule):
    """``AdaptiveAvgPool2d(1)`` or ``AvgPool2d``: QLinearGlobalAveragePool or QLinearAveragePool."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, pool: nn.AdaptiveAvgPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, H', W')."""
        return self.pool(x)  # type: ignore[no-any-return]  # modules are untyped callables
