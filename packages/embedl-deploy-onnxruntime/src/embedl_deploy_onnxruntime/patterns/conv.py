"""Fusions that start with a convolution."""

from torch import nn

from embedl_deploy.fusions import why_not_one_convolution
from embedl_deploy.modules import BatchNorm, Convolution
from embedl_deploy.patterns import (
    Applied,
    Example,
    Pattern,
    PatternMatch,
    QDQPoint,
    Tapped,
    Wildcard,
)
from embedl_deploy_onnxruntime.modules import OrtConv, Rectifier
from embedl_deploy_onnxruntime.patterns.examples import maps, sequences

_OPTIONAL_BN = Wildcard(BatchNorm, max_count=1)


class ConvRectifierPattern(Pattern):
    """``convolution → [batch norm] → ReLU or ReLU6``."""

    tree = (Convolution, _OPTIONAL_BN, Rectifier)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = OrtConv

    def check(self, match: PatternMatch) -> str | None:
        """Take a batch norm over the convolution's channels, and a call with the map alone."""
        return why_not_one_convolution(match)

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()), maps()),
            Example(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6()), maps(), "depthwise, no batch norm"),
            Example(nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU()), sequences(4), "a sequence"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Hardswish()), maps(), "no rectifier"),
            Example(Tapped(nn.Conv2d(4, 8, 3), nn.ReLU()), maps(), "used before the rectifier"),
        ]


class ConvPattern(Pattern):
    """``convolution → [batch norm]``."""

    tree = (Convolution, _OPTIONAL_BN)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = OrtConv

    def check(self, match: PatternMatch) -> str | None:
        """Take a batch norm over the convolution's channels, and a call with the map alone."""
        return why_not_one_convolution(match)

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)), maps(), "with batch norm"),
            Example(nn.Sequential(nn.Conv2d(4, 8, 3), nn.SiLU()), maps(), "another activation stays outside"),
            Example(nn.Sequential(nn.ConvTranspose2d(4, 8, 2, stride=2)), maps(), "transposed"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), maps(), "no convolution"),
            Example(
                Applied(lambda up, x: up(x, (18, 18)), nn.ConvTranspose2d(4, 8, 3, stride=2)),
                maps(),
                "an output size at the call",
            ),
        ]
