"""Matrix products with what TensorRT computes in the same kernel."""

import torch
from torch import nn

from embedl_deploy.modules import ActivationLike, FusedMatmul, is_homogeneous


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
    """``Linear → activation``. Named after the most common activation function; takes any it knows."""

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


#: The same class by the name of embedl-deploy 0.6.
FusedLinearAct = FusedLinearReLU
