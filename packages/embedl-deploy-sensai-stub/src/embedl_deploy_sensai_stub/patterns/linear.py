"""The fusion of fully connected layers."""

from torch import nn

from embedl_deploy.patterns import Pattern, PatternMatch, QDQPoint, Wildcard, shape_of
from embedl_deploy_sensai_stub.limits import linear_limit
from embedl_deploy_sensai_stub.modules import SensaiLinear


class LinearPattern(Pattern):
    """``Linear → [ReLU]``."""

    tree = (nn.Linear, Wildcard(nn.ReLU, max_count=1))
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = SensaiLinear

    def check(self, match: PatternMatch) -> str | None:
        """Take only a layer of one vector per sample; without shapes every layer is taken for one."""
        return linear_limit(shape_of(match.tree_match.inputs()[0]))
