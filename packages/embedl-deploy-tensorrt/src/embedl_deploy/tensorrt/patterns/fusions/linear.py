"""Fusions of matrix products."""

import torch
from torch import nn

from embedl_deploy.modules import ActivationLike
from embedl_deploy.patterns import Applied, Example, Pattern, QDQPoint, Tapped
from embedl_deploy.tensorrt.modules.linear import FusedLinear, FusedLinearReLU


def _vectors() -> tuple[torch.Tensor]:
    """(N, 8), for examples."""
    return (torch.randn(4, 8),)


def _sequences() -> tuple[torch.Tensor]:
    """(B, S, 8), for examples."""
    return (torch.randn(2, 5, 8),)


class LinearReLUPattern(Pattern):
    """``Linear → activation``."""

    tree = (nn.Linear, ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedLinearReLU

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.Linear(8, 6), nn.ReLU()), _vectors()),
            Example(nn.Sequential(nn.Linear(8, 6, bias=False), nn.GELU()), _sequences(), "no bias, a sequence"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.Linear(8, 6), nn.Tanh()), _vectors(), "no activation that ends a product"),
            Example(Tapped(nn.Linear(8, 6), nn.ReLU()), _vectors(), "used before the activation"),
        ]


class LinearPattern(Pattern):
    """``Linear``."""

    tree = (nn.Linear,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedLinear

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.Linear(8, 6)), _vectors()),
            Example(nn.Sequential(nn.Linear(8, 6, bias=False)), _sequences(), "no bias, a sequence"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(Applied(lambda x: x @ x.transpose(-1, -2)), _sequences(), "no weight"),
            Example(nn.Sequential(nn.Conv1d(8, 6, 1)), (torch.randn(2, 8, 5),), "a convolution"),
        ]


#: The same class by the name of embedl-deploy 0.6.
LinearActPattern = LinearReLUPattern
