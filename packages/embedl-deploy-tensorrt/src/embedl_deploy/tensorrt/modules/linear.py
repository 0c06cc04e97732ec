"""Matrix products with what TensorRT computes in the same kernel, and layer norm."""

import torch
from torch import nn

from embedl_deploy.modules import ActivationLike, FusedMatmul, FusedModule


class FusedLinear(FusedMatmul):
    """``Linear``."""

    inputs_to_quantize = frozenset({0})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return self.project(x)


class FusedLinearReLU(FusedMatmul):
    """``Linear → activation``. Named after the commonest activation; takes any it knows."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, linear: nn.Linear, act: ActivationLike) -> None:
        super().__init__(linear)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return self.act(self.project(x))  # type: ignore[no-any-return]  # modules are untyped callables


class FusedLayerNorm(FusedModule):
    """``LayerNorm``, never quantized: it normalizes by statistics that rounding its input would disturb.

    It is a fused module so that smoothing can move scales between it and the matrix products that follow.
    """

    inputs_to_quantize = frozenset()

    def __init__(self, layer_norm: nn.LayerNorm) -> None:
        super().__init__()
        self.layer_norm = layer_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., *normalized_shape) to the same."""
        return self.layer_norm(x)  # type: ignore[no-any-return]  # as above


#: The same class by the name of embedl-deploy 0.6.
FusedLinearAct = FusedLinearReLU
