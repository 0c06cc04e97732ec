"""Matrix products with what TensorRT computes in the same kernel, and layer norm."""

import torch
from torch import nn

from embedl_deploy.modules import ActivationLike, FusedMatmul, FusedModule, is_homogeneous, with_parameters


class FusedLinear(FusedMatmul):
    """``Linear``."""

    inputs_to_quantize = frozenset({0})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return self.project(x)

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In the product."""
        self.scale_product(factors)
        return None


class FusedLinearReLU(FusedMatmul):
    """``Linear → activation``. Named after the commonest activation; takes any it knows."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, linear: nn.Linear, act: ActivationLike) -> None:
        super().__init__(linear)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return self.act(self.project(x))  # type: ignore[no-any-return]  # modules are untyped callables

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In the product, through a ReLU."""
        if not is_homogeneous(self.act):
            return f"{type(self.act).__name__} does not let factors through"
        self.scale_product(factors)
        return None


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

    @torch.no_grad()
    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In weight and bias."""
        norm = self.layer_norm
        if norm.normalized_shape != tuple(factors.shape):
            return f"it normalizes over {norm.normalized_shape}, not over {factors.numel()} channels"
        if not norm.elementwise_affine:
            return "it has no weight and bias to scale"
        self.layer_norm = with_parameters(
            norm, norm.weight * factors, None if norm.bias is None else norm.bias * factors
        )
        return None


#: The same class by the name of embedl-deploy 0.6.
FusedLinearAct = FusedLinearReLU
