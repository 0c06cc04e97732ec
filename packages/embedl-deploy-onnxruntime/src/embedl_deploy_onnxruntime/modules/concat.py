"""Concatenation of any number of tensors."""

import torch

from embedl_deploy.modules import FusedModule


class OrtConcat(FusedModule):
    """``torch.cat``: QLinearConcat, in which each tensor, and the result, has its own scale.

    It has no quantizers for its inputs: it runs in integers where what it reads is quantized where it is computed.

    Args:
        dim: The dimension.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Tensors that differ in the size of one dimension at most, to one of the sum of the sizes."""
        return torch.cat(tensors, self.dim)
