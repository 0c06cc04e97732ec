"""The fusion of max pooling: one operator, which thereby becomes a kernel of the engine."""

from torch import nn

from embedl_deploy.patterns import Pattern, PatternMatch, QDQPoint, resolve_module
from embedl_deploy_sensai_stub.limits import max_pool_limit
from embedl_deploy_sensai_stub.modules import SensaiMaxPool


class MaxPoolPattern(Pattern):
    """``MaxPool2d(2)``."""

    tree = (nn.MaxPool2d,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = SensaiMaxPool

    def check(self, match: PatternMatch) -> str | None:
        """Take only what the engine runs."""
        return max_pool_limit(resolve_module(match.tree_match.get_node(0), nn.MaxPool2d))
