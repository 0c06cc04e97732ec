"""The sum of two maps."""

import torch
from torch import nn

from embedl_deploy.modules import FusedModule


class SensaiAdd(FusedModule):
    """``x + y → [ReLU]``. It has no weight; each of the two maps has its own scale."""

    inputs_to_quantize = frozenset({0, 1})

    def __init__(self, relu: nn.ReLU | None = None) -> None:
        super().__init__()
        self.relu = relu

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two of (N, C, H, W) to one."""
        total = x + y
        return total if self.relu is None else self.relu(total)
