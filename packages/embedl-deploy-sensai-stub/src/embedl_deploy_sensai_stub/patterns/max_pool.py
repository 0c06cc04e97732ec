"""The fusion of max pooling: one operator, which thereby becomes a kernel of the engine."""

from collections.abc import Sequence

from torch import nn

from embedl_deploy.patterns import Example, Pattern, PatternMatch, QDQPoint, resolve_module
from embedl_deploy_sensai_stub.limits import max_pool_limit
from embedl_deploy_sensai_stub.modules import SensaiMaxPool
from embedl_deploy_sensai_stub.small_models import image


class MaxPoolPattern(Pattern):
    """``MaxPool2d(2)``."""

    tree = (nn.MaxPool2d,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = SensaiMaxPool

    def check(self, match: PatternMatch) -> str | None:
        """Take only what the engine runs."""
        return max_pool_limit(resolve_module(match.tree_match.get_node(0), nn.MaxPool2d))

    def examples(self) -> Sequence[Example]:
        """The usual window."""
        return (Example(nn.MaxPool2d(2), image(side=9), "the last row and column are left out"),)

    def near_misses(self) -> Sequence[Example]:
        """Windows that overlap, and one that returns where the maxima were."""
        return (
            Example(nn.MaxPool2d(3, 2, 1), image(), "a window of 3×3, as in ResNet"),
            Example(nn.MaxPool2d(2, 1), image(), "moves by one pixel"),
            Example(nn.MaxPool2d(2, ceil_mode=True), image(side=9), "fills the last windows up"),
        )
