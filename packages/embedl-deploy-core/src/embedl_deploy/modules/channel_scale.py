"""Multiplying channels by constants, and which operators that passes through."""

import torch
from torch import nn

from embedl_deploy.graph.forms.activations import ACTIVATIONS
from embedl_deploy.validation.checked import checked

#: Operators f with f(s·x) = s·f(x) for every s > 0, channel by channel.
_HOMOGENEOUS = (
    *(activation.module_class for activation in ACTIVATIONS if activation.homogeneous),
    *(nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout),
)


@checked
def is_homogeneous(*operators: nn.Module | None) -> bool:
    """Whether all given operators (except ``None``) pass a positive factor of a channel through.

    ``ReLU6`` does not: its upper bound would have to be scaled as well, differently for every channel.
    """
    return all(operator is None or type(operator) in _HOMOGENEOUS for operator in operators)


class ChannelScale(nn.Module):
    """Multiplies the last axis by constants.

    Args:
        factors: (C,), positive.
    """

    factors: torch.Tensor

    @checked
    def __init__(self, factors: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("factors", factors)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., C) to the same."""
        return x * self.factors

    def extra_repr(self) -> str:
        """The number of channels."""
        return f"{self.factors.numel()} channels"
