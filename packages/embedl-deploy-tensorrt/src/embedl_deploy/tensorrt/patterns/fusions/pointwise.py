"""Fusions of element-wise operators."""

import operator

import torch
from torch import nn

from embedl_deploy.modules import ActivationLike
from embedl_deploy.patterns import Applied, Example, Fork, Pattern, QDQPoint
from embedl_deploy.tensorrt.modules.pointwise import FusedActAdd
from embedl_deploy.tensorrt.patterns.example_parts import Joined


def _maps() -> tuple[torch.Tensor]:
    """(N, 4, H, W), for examples."""
    return (torch.randn(2, 4, 8, 8),)


class ActAddPattern(Pattern):
    """``activation(x) + residual``, in either order of the sum."""

    tree = (Fork(operator.add, (ActivationLike,), ()),)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})
    graft = FusedActAdd

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(Joined(nn.SiLU()), _maps()),
            Example(Joined(nn.ReLU(), join=lambda y, x: x + y), _maps(), "the other order"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(Joined(nn.SiLU(), join=torch.sub), _maps(), "a difference"),
            Example(
                Applied(lambda act, x: (y := act(x), y + x), nn.SiLU()),
                _maps(),
                "the activation is used elsewhere",
            ),
        ]
