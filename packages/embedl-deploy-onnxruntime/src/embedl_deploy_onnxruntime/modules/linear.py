"""Matrix products with a weight, and a rectifier that the output's range cuts off."""

import torch
from torch import nn

from embedl_deploy.modules import FusedMatmul, is_homogeneous
from embedl_deploy_onnxruntime.modules.conv import Rectifier


class OrtLinear(FusedMatmul):
    """``Linear → [ReLU or ReLU6]``."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, linear: nn.Linear, act: Rectifier | None = None) -> None:
        super().__init__(linear)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        y = self.project(x)
        return y if self.act is None else self.act(y)

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In the product, through a ReLU."""
        if self.act is not None and not is_homogeneous(self.act):
            return f"{type(self.act).__name__} does not let factors through"
        self.scale_product(factors)
        return None
