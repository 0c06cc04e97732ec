"""Fusions of element-wise operators."""

import operator

from embedl_deploy.modules import ActivationLike
from embedl_deploy.patterns import Fork, Pattern, QDQPoint
from embedl_deploy.tensorrt.modules.pointwise import FusedActAdd


class ActAddPattern(Pattern):
    """``activation(x) + residual``, in either order of the sum."""

    tree = (Fork(operator.add, (ActivationLike,), ()),)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})
    graft = FusedActAdd
