"""Matrix products with what TensorRT computes in the same kernel."""

import torch
from torch import nn

from embedl_deploy.modules import (
    ActivationLike,
    FusedMatmul,
    center_input_of,
    is_homogeneous,
    shift_outputs_of,
    shifted_activation,
)


class _TensorRTProduct(FusedMatmul):
    """A product that reads its input and nothing else does."""

    def input_padding(self) -> tuple[int, ...] | str:
        """A product pads nothing."""
        return ()

    def center_input(self, center: float) -> None:
        """In the bias of the product."""
        center_input_of(self, center)


class FusedLinear(_TensorRTProduct):
    """``Linear``."""

    inputs_to_quantize = frozenset({0})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return self.project(x)

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In the product."""
        self.scale_product(factors)
        return None

    def shift_outputs(self, shift: float) -> str | None:
        """In the bias."""
        shift_outputs_of(self, shift)
        return None


class FusedLinearReLU(_TensorRTProduct):
    """``Linear → activation``. Named after the most common activation function; takes any it knows."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, linear: nn.Linear, act: ActivationLike) -> None:
        super().__init__(linear)
        self.act: nn.Module = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return self.act(self.project(x))  # type: ignore[no-any-return]  # modules are untyped callables

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In the product, through a ReLU."""
        if not is_homogeneous(self.act):
            return f"{type(self.act).__name__} does not let factors through"
        self.scale_product(factors)
        return None

    def shift_outputs(self, shift: float) -> str | None:
        """In the bias and the bound of a ReLU."""
        shifted = shifted_activation(self.act, shift)
        if shifted is None:
            return f"{type(self.act).__name__} has no bound to shift"
        self.act = shifted
        shift_outputs_of(self, shift)
        return None


#: The same class by the name of embedl-deploy 0.6.
FusedLinearAct = FusedLinearReLU
