"""Fusions of pooling."""

import torch
from torch import nn

from embedl_deploy.patterns import Example, Pattern, QDQPoint
from embedl_deploy.tensorrt.modules.pool import FusedAdaptiveAvgPool2d


def _maps() -> tuple[torch.Tensor]:
    """(N, 4, H, W), for examples."""
    return (torch.randn(2, 4, 8, 8),)


class AdaptiveAvgPoolPattern(Pattern):
    """``AdaptiveAvgPool2d``: INT8 needs quantizers on both sides. Leave it out of a list to keep pooling in float."""

    tree = (nn.AdaptiveAvgPool2d,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = FusedAdaptiveAvgPool2d

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.AdaptiveAvgPool2d(1)), _maps(), "global pooling"),
            Example(nn.Sequential(nn.AdaptiveAvgPool2d((2, 4))), _maps()),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.AvgPool2d(2)), _maps(), "a window of its own"),
            Example(nn.Sequential(nn.AdaptiveMaxPool2d(1)), _maps(), "the maximum"),
        ]
