"""Fusions that start with a convolution. Declined: what `limits` says that the engine cannot run."""

from collections.abc import Sequence

from torch import nn

from embedl_deploy.patterns import Example, Pattern, PatternMatch, QDQPoint, Wildcard, resolve_module
from embedl_deploy_sensai_stub.limits import batch_norm_limit, conv_limit
from embedl_deploy_sensai_stub.modules import SensaiConvBN, SensaiConvBNReLU
from embedl_deploy_sensai_stub.small_models import batch_norm, image

_OPTIONAL_BN = Wildcard(nn.BatchNorm2d, max_count=1)


def _limit(match: PatternMatch) -> str | None:
    """The limit that the convolution, or the batch norm if one was matched, breaks."""
    reason = conv_limit(resolve_module(match.tree_match.get_node(0), nn.Conv2d))
    for node in match.tree_match.get_node(1).nodes:
        reason = reason or batch_norm_limit(resolve_module(node, nn.BatchNorm2d))
    return reason


class ConvBNReLUPattern(Pattern):
    """``Conv2d → [BatchNorm2d] → ReLU``."""

    tree = (nn.Conv2d, _OPTIONAL_BN, nn.ReLU)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = SensaiConvBNReLU

    def check(self, match: PatternMatch) -> str | None:
        """Take only what the engine runs."""
        return _limit(match)

    def examples(self) -> Sequence[Example]:
        """A dense and a depthwise convolution."""
        dense, depthwise = nn.Conv2d(4, 6, 3, bias=False), nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)
        return (
            Example(nn.Sequential(dense, batch_norm(6), nn.ReLU()), image(), "with batch norm"),
            Example(nn.Sequential(depthwise, nn.ReLU()), image(), "depthwise, without"),
        )

    def near_misses(self) -> Sequence[Example]:
        """Convolutions that the engine has not got, and another activation."""
        return (
            Example(nn.Sequential(nn.Conv2d(4, 4, 5), nn.ReLU()), image(), "the kernel is 5×5"),
            Example(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.ReLU()), image(), "in two groups"),
            Example(nn.Sequential(nn.Conv2d(4, 4, 3), batch_norm(4), nn.ReLU6()), image(), "ReLU6 is not a ReLU"),
        )


class ConvBNPattern(Pattern):
    """``Conv2d → [BatchNorm2d]``; a bare convolution too."""

    tree = (nn.Conv2d, _OPTIONAL_BN)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = SensaiConvBN

    def check(self, match: PatternMatch) -> str | None:
        """Take only what the engine runs."""
        return _limit(match)

    def examples(self) -> Sequence[Example]:
        """With batch norm, and bare."""
        return (
            Example(nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), batch_norm(6)), image(), "with batch norm"),
            Example(nn.Conv2d(4, 6, 3, padding=1), image(), "bare"),
        )

    def near_misses(self) -> Sequence[Example]:
        """Convolutions that the engine has not got."""
        return (
            Example(nn.Conv2d(4, 4, 3, dilation=2), image(), "is dilated"),
            Example(nn.Conv2d(4, 4, 3, stride=3), image(), "the stride is 3"),
            Example(nn.ConvTranspose2d(4, 4, 3), image(), "is transposed"),
        )
