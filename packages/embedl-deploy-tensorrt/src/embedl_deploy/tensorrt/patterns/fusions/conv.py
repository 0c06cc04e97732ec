"""Fusions that start with a convolution: over one, two or three dimensions, transposed or not.

Declined: a transposed convolution whose output size is chosen at the call, because the fused module is called with the
map alone; and a batch norm over another dimension than the convolution's output channels, as ``BatchNorm1d`` has it
after a ``Conv1d`` that is given one sequence and no batch.
"""

import operator

import torch
from torch import nn

from embedl_deploy.fusions import why_not_one_convolution
from embedl_deploy.modules import ActivationLike, BatchNorm, Convolution
from embedl_deploy.patterns import (
    Applied,
    Example,
    Fork,
    Pattern,
    PatternMatch,
    QDQPoint,
    Tapped,
    Wildcard,
    resolve_module,
)
from embedl_deploy.tensorrt.modules.conv import (
    FusedConvBN,
    FusedConvBNAddReLU,
    FusedConvBNReLU,
    FusedConvBNReLUMaxPool,
)
from embedl_deploy.tensorrt.patterns.example_parts import Joined, conv_bn

_OPTIONAL_BN = Wildcard(BatchNorm, max_count=1)


def _pictures() -> tuple[torch.Tensor]:
    """(N, 3, H, W), for examples."""
    return (torch.randn(2, 3, 12, 12),)


def _maps() -> tuple[torch.Tensor]:
    """(N, 4, H, W), for examples."""
    return (torch.randn(2, 4, 8, 8),)


def _sequences() -> tuple[torch.Tensor]:
    """(N, 4, L), for examples."""
    return (torch.randn(2, 4, 10),)


def _volumes() -> tuple[torch.Tensor]:
    """(N, 4, D, H, W), for examples."""
    return (torch.randn(2, 4, 3, 4, 5),)


class StemConvBNReLUMaxPoolPattern(Pattern):
    """``Conv2d(3, ·, 7×7) → [BatchNorm2d] → activation → MaxPool2d``, the stem of ResNet and its kin."""

    tree = (nn.Conv2d, Wildcard(nn.BatchNorm2d, max_count=1), ActivationLike, nn.MaxPool2d)
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
    """``convolution → batch norm → (+ residual) → activation``, in either order of the sum."""

    tree = (Fork(operator.add, (Convolution, BatchNorm), ()), ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})
    graft = FusedConvBNAddReLU

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(Joined(nn.Sequential(*conv_bn(4, 4)), nn.ReLU()), _maps(), "the end of a residual block"),
            Example(Joined(nn.Sequential(*conv_bn(4, 4)), nn.ReLU(), lambda y, x: x + y), _maps(), "the other order"),
            Example(
                Joined(nn.Sequential(nn.Conv3d(4, 4, 3, padding=1, bias=False), nn.BatchNorm3d(4)), nn.ReLU()),
                _volumes(),
                "a block of a video network",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(Joined(nn.Conv2d(4, 4, 1), nn.ReLU()), _maps(), "no batch norm"),
            Example(Joined(nn.Sequential(*conv_bn(4, 4)), nn.ReLU(), torch.sub), _maps(), "a difference"),
            Example(Tapped(Joined(nn.Sequential(*conv_bn(4, 4))), nn.ReLU()), _maps(), "the sum is used elsewhere"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take a batch norm over the convolution's channels, and a call with the map alone."""
        return why_not_one_convolution(match)


class ConvBNReLUPattern(Pattern):
    """``convolution → [batch norm] → activation``."""

    tree = (Convolution, _OPTIONAL_BN, ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedConvBNReLU

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(*conv_bn(4, 8), nn.ReLU()), _maps(), "with batch norm"),
            Example(
                nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.Hardswish()), _maps(), "depthwise, another activation"
            ),
            Example(
                nn.Sequential(nn.Conv1d(4, 8, 3, dilation=2), nn.BatchNorm1d(8), nn.GELU()), _sequences(), "a sequence"
            ),
            Example(
                nn.Sequential(nn.ConvTranspose2d(4, 8, 2, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
                _maps(),
                "transposed, as in a decoder",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(*conv_bn(4, 8), nn.Tanh()), _maps(), "no activation that ends a convolution"),
            Example(Tapped(nn.Sequential(*conv_bn(4, 8)), nn.ReLU()), _maps(), "used before the activation"),
            Example(
                Applied(lambda up, act, x: act(up(x, (18, 18))), nn.ConvTranspose2d(4, 8, 3, stride=2), nn.ReLU()),
                _maps(),
                "an output size at the call",
            ),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take a batch norm over the convolution's channels, and a call with the map alone."""
        return why_not_one_convolution(match)


class ConvBNPattern(Pattern):
    """``convolution → [batch norm]``; a bare convolution too, so that it gets its quantizers."""

    tree = (Convolution, _OPTIONAL_BN)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedConvBN

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(*conv_bn(4, 8)), _maps(), "with batch norm"),
            Example(
                nn.Sequential(nn.Conv2d(6, 6, 3, groups=2)), (torch.randn(2, 6, 8, 8),), "no INT8 kernel for its groups"
            ),
            Example(nn.Sequential(nn.Conv1d(4, 8, 3)), _sequences(), "a sequence"),
            Example(nn.Sequential(nn.Conv3d(4, 8, 3), nn.BatchNorm3d(8)), _volumes(), "a volume"),
            Example(
                nn.Sequential(nn.ConvTranspose3d(4, 8, 2, stride=2, groups=2), nn.BatchNorm3d(8)),
                _volumes(),
                "transposed, in groups",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), _maps(), "no convolution"),
            Example(
                Applied(lambda up, x: up(x, (18, 18)), nn.ConvTranspose2d(4, 8, 3, stride=2)),
                _maps(),
                "an output size at the call",
            ),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take a batch norm over the convolution's channels, and a call with the map alone."""
        return why_not_one_convolution(match)


#: The same classes by the names of embedl-deploy 0.6.
StemConvBNActMaxPoolPattern = StemConvBNReLUMaxPoolPattern
ConvBNAddActPattern = ConvBNAddReLUPattern
ConvBNActPattern = ConvBNReLUPattern
