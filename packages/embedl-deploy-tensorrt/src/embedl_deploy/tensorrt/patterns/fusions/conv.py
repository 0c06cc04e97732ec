"""Fusions that start with a convolution."""

import operator

import torch
from torch import nn

from embedl_deploy.modules import ActivationLike
from embedl_deploy.patterns import Example, Fork, Pattern, PatternMatch, QDQPoint, Wildcard, resolve_module
from embedl_deploy.tensorrt.modules.conv import (
    FusedConvBN,
    FusedConvBNAddReLU,
    FusedConvBNReLU,
    FusedConvBNReLUMaxPool,
)
from embedl_deploy.tensorrt.patterns.example_parts import Joined, Tapped, conv_bn
from embedl_deploy.tensorrt.patterns.fusions.sums import why_not_this_sum

_OPTIONAL_BN = Wildcard(nn.BatchNorm2d, max_count=1)


def _pictures() -> tuple[torch.Tensor]:
    """(N, 3, H, W), for examples."""
    return (torch.randn(2, 3, 12, 12),)


def _maps() -> tuple[torch.Tensor]:
    """(N, 4, H, W), for examples."""
    return (torch.randn(2, 4, 8, 8),)


class StemConvBNReLUMaxPoolPattern(Pattern):
    """``Conv2d(3, ·, 7×7) → [BatchNorm2d] → activation → MaxPool2d``, the stem of ResNet and its kin."""

    tree = (nn.Conv2d, _OPTIONAL_BN, ActivationLike, nn.MaxPool2d)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedConvBNReLUMaxPool

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(
                nn.Sequential(*conv_bn(3, 8, 7, stride=2), nn.ReLU(), nn.MaxPool2d(2)), _pictures(), "ResNet's stem"
            ),
            Example(nn.Sequential(nn.Conv2d(3, 8, 7), nn.SiLU(), nn.MaxPool2d(2)), _pictures(), "no batch norm"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(*conv_bn(3, 8), nn.ReLU(), nn.MaxPool2d(2)), _pictures(), "the kernel is 3×3"),
            Example(
                nn.Sequential(*conv_bn(4, 8, 7), nn.ReLU(), nn.MaxPool2d(2)), _maps(), "the input has four channels"
            ),
            Example(
                Tapped(nn.Sequential(*conv_bn(3, 8, 7), nn.ReLU()), nn.MaxPool2d(2)), _pictures(), "used before pooling"
            ),
        ]

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

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(Joined(nn.Sequential(*conv_bn(4, 4)), nn.ReLU()), _maps(), "the end of a residual block"),
            Example(Joined(nn.Sequential(*conv_bn(4, 4)), nn.ReLU(), lambda y, x: x + y), _maps(), "the other order"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(Joined(nn.Conv2d(4, 4, 1), nn.ReLU()), _maps(), "no batch norm"),
            Example(Joined(nn.Sequential(*conv_bn(4, 4)), nn.ReLU(), torch.sub), _maps(), "a difference"),
            Example(Tapped(Joined(nn.Sequential(*conv_bn(4, 4))), nn.ReLU()), _maps(), "the sum is used elsewhere"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take a sum that has the dtype of a plain sum."""
        return why_not_this_sum(match.tree_match.get_node(0))


class ConvBNReLUPattern(Pattern):
    """``Conv2d → [BatchNorm2d] → activation``."""

    tree = (nn.Conv2d, _OPTIONAL_BN, ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedConvBNReLU

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(*conv_bn(4, 8), nn.ReLU()), _maps(), "with batch norm"),
            Example(
                nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.Hardswish()), _maps(), "depthwise, another activation"
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(*conv_bn(4, 8), nn.Tanh()), _maps(), "no activation that ends a convolution"),
            Example(Tapped(nn.Sequential(*conv_bn(4, 8)), nn.ReLU()), _maps(), "used before the activation"),
        ]


class ConvBNPattern(Pattern):
    """``Conv2d → [BatchNorm2d]``; a bare convolution too, so that it gets its quantizers."""

    tree = (nn.Conv2d, _OPTIONAL_BN)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedConvBN

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(*conv_bn(4, 8)), _maps(), "with batch norm"),
            Example(
                nn.Sequential(nn.Conv2d(6, 6, 3, groups=2)), (torch.randn(2, 6, 8, 8),), "no INT8 kernel for its groups"
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.ConvTranspose2d(4, 8, 2), nn.BatchNorm2d(8)), _maps(), "a transposed convolution"),
            Example(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), _maps(), "no convolution"),
        ]


#: The same classes by the names of embedl-deploy 0.6.
StemConvBNActMaxPoolPattern = StemConvBNReLUMaxPoolPattern
ConvBNAddActPattern = ConvBNAddReLUPattern
ConvBNActPattern = ConvBNReLUPattern
