"""The fully connected layer."""

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.modules import FusedModule, WeightFakeQuantize


class SensaiLinear(FusedModule):
    """``Linear → [ReLU]``."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, linear: nn.Linear, relu: nn.ReLU | None = None) -> None:
        super().__init__()
        self.linear = linear
        self.relu = relu
        self.weight_fake_quant = WeightFakeQuantize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_features) to (N, out_features)."""
        x = self.quantize_input(0, x)
        if self.weight_fake_quant.enabled:
            x = F.linear(x, self.weight_fake_quant(self.linear.weight), self.linear.bias)
        else:
            x = self.linear(x)
        return x if self.relu is None else self.relu(x)
