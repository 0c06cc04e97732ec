"""Fusions that start with a convolution."""

import operator

from torch import nn

from embedl_deploy.modules import ActivationLike
from embedl_deploy.patterns import Fork, Pattern, PatternMatch, QDQPoint, Wildcard, resolve_module
from embedl_deploy.tensorrt.modules.conv import (
    FusedConvBN,
    FusedConvBNAddReLU,
    FusedConvBNReLU,
    FusedConvBNReLUMaxPool,
)
from embedl_deploy.tensorrt.patterns.fusions.sums import why_not_this_sum

_OPTIONAL_BN = Wildcard(nn.BatchNorm2d, max_count=1)


class StemConvBNReLUMaxPoolPattern(Pattern):
    """``Conv2d(3, ·, 7×7) → [BatchNorm2d] → activation → MaxPool2d``, the stem of ResNet and its kin."""

    tree = (nn.Conv2d, _OPTIONAL_BN, ActivationLike, nn.MaxPool2d)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedConvBNReLUMaxPool

    def check(self, match: PatternMatch) -> str | None:
        """Take only the stem itself."""
        conv = resolve_module(match.tree_match.get_node(0), nn.Conv2d)
        if conv.in_channels == 3 and tuple(conv.kernel_size) == (7, 7):
            return None
        return f"the convolution is {conv.kernel_size} over {conv.in_channels} channels, not (7, 7) over 3"


class ConvBNAddReLUPattern(Pattern):
    """``Conv2d → BatchNorm2d → (+ residual) → activation``, in either order of the sum."""

    tree = (Fork(operator.add, (nn.Conv2d, nn.BatchNorm2d), ()), ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})
    graft = FusedConvBNAddReLU

    def check(self, match: PatternMatch) -> str | None:
        """Take a sum that has the dtype of a plain sum."""
        return why_not_this_sum(match.tree_match.get_node(0))


class ConvBNReLUPattern(Pattern):
    """``Conv2d → [BatchNorm2d] → activation``."""

    tree = (nn.Conv2d, _OPTIONAL_BN, ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedConvBNReLU


class ConvBNPattern(Pattern):
    """``Conv2d → [BatchNorm2d]``; a bare convolution too, so that it gets its quantizers."""

    tree = (nn.Conv2d, _OPTIONAL_BN)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedConvBN


#: The same classes by the names of embedl-deploy 0.6.
StemConvBNActMaxPoolPattern = StemConvBNReLUMaxPoolPattern
ConvBNAddActPattern = ConvBNAddReLUPattern
ConvBNActPattern = ConvBNReLUPattern
