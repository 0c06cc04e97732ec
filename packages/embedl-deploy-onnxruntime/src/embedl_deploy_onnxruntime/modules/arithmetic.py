"""Sums and products of two tensors, element by element."""

import torch

from embedl_deploy.modules import FusedModule
from embedl_deploy_onnxruntime.modules.conv import Rectifier


class OrtAdd(FusedModule):
    """``x + y → [ReLU or ReLU6]``: QLinearAdd, in which each of the two, and the sum, has its own scale."""

    inputs_to_quantize = frozenset({0, 1})

    def __init__(self, act: Rectifier | None = None) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two tensors that broadcast, to their common shape."""
        total = x + y
        return total if self.act is None else self.act(total)


class OrtMul(FusedModule):
    """``x · y``: QLinearMul, in which each of the two, and the product, has its own scale."""

    inputs_to_quantize = frozenset({0, 1})

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two tensors that broadcast, to their common shape."""
        return x * y
