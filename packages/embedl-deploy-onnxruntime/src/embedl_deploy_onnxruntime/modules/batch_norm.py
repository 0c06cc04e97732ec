"""Batch norm that follows no convolution, as in DenseNet, and a rectifier."""

import torch

from embedl_deploy.modules import BatchNorm, FusedModule
from embedl_deploy_onnxruntime.modules.conv import Rectifier


class OrtBatchNorm(FusedModule):
    """``batch norm → [ReLU or ReLU6]``: QLinearConv of one filter of one value a channel.

    The file has it as that convolution. Its weight needs no quantizer: with a scale for each channel it is exact.
    """

    inputs_to_quantize = frozenset({0})

    def __init__(self, bn: BatchNorm, act: Rectifier | None = None) -> None:
        super().__init__()
        self.bn = bn
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) to the same."""
        y: torch.Tensor = self.bn(x)
        return y if self.act is None else self.act(y)
