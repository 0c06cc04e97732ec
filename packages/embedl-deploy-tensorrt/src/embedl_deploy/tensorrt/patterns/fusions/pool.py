"""Fusions of pooling."""

from torch import nn

from embedl_deploy.patterns import Pattern, QDQPoint
from embedl_deploy.tensorrt.modules.pool import FusedAdaptiveAvgPool2d


class AdaptiveAvgPoolPattern(Pattern):
    """``AdaptiveAvgPool2d``: INT8 needs quantizers on both sides. Leave it out of a list to keep pooling in float."""

    tree = (nn.AdaptiveAvgPool2d,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = FusedAdaptiveAvgPool2d
