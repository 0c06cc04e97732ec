"""Fusions that start with a convolution. Declined: what `limits` says that the engine cannot run."""

from torch import nn

from embedl_deploy.patterns import Pattern, PatternMatch, QDQPoint, Wildcard, resolve_module
from embedl_deploy_sensai_stub.limits import batch_norm_limit, conv_limit
from embedl_deploy_sensai_stub.modules import SensaiConvBN, SensaiConvBNReLU

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


class ConvBNPattern(Pattern):
    """``Conv2d → [BatchNorm2d]``; a bare convolution too."""

    tree = (nn.Conv2d, _OPTIONAL_BN)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = SensaiConvBN

    def check(self, match: PatternMatch) -> str | None:
        """Take only what the engine runs."""
        return _limit(match)
