"""Average pooling, over the whole map and over windows."""

import torch
from torch import nn

from embedl_deploy.modules import FusedModule

AveragePool = nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d


class OrtGlobalAveragePool(FusedModule):
    """``AdaptiveAvgPool2d(1)``: QLinearGlobalAveragePool."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, 1, 1)."""
        return self.pool(x)  # type: ignore[no-any-return]  # modules are untyped callables


class OrtAveragePool(FusedModule):
    """``AvgPool1d``, ``AvgPool2d`` or ``AvgPool3d``: QLinearConv, whose filters are constant.

    The file has it as that convolution: QLinearAveragePool is many times slower than the pool in float.
    """

    inputs_to_quantize = frozenset({0})

    def __init__(self, pool: AveragePool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) to (N, C, ...), with fewer positions."""
        return self.pool(x)  # type: ignore[no-any-return]  # as above
