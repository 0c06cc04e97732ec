"""Fusions of element-wise operators."""

import operator

from embedl_deploy.modules import ActivationLike
from embedl_deploy.patterns import Fork, Pattern, PatternMatch, QDQPoint
from embedl_deploy.tensorrt.modules.pointwise import FusedActAdd
from embedl_deploy.tensorrt.patterns.fusions.sums import why_not_this_sum


class ActAddPattern(Pattern):
    """``activation(x) + residual``, in either order of the sum."""

    tree = (Fork(operator.add, (ActivationLike,), ()),)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})
    graft = FusedActAdd

    def check(self, match: PatternMatch) -> str | None:
        """Take a sum that has the dtype of a plain sum."""
        return why_not_this_sum(match.tree_match.get_node(0))
