"""Pooling."""

import torch
from torch import nn

from embedl_deploy.modules import FusedModule


class FusedAdaptiveAvgPool2d(FusedModule):
    """``AdaptiveAvgPool2d``. In INT8 only if what comes before and after is."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, *output_size)."""
        return self.pool(x)  # type: ignore[no-any-return]  # modules are untyped callables
