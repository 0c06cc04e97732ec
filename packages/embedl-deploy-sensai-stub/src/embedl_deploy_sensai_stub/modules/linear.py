"""The fully connected layer."""

import torch
from torch import nn

from embedl_deploy.modules import FusedMatmul


class SensaiLinear(FusedMatmul):
    """``Linear → [ReLU]``."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, linear: nn.Linear, relu: nn.ReLU | None = None) -> None:
        super().__init__(linear)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_features) to (N, out_features)."""
        x = self.project(x)
        return x if self.relu is None else self.relu(x)
