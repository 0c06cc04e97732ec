"""The fusion of sums, as residual networks have them. Declined: what `limits` says that the engine cannot run."""

import operator
from collections.abc import Sequence

import torch
from torch import nn

from embedl_deploy.patterns import Example, Fork, Pattern, PatternMatch, QDQPoint, Wildcard
from embedl_deploy_sensai_stub.limits import add_limit
from embedl_deploy_sensai_stub.modules import SensaiAdd
from embedl_deploy_sensai_stub.small_models import Applied, image


class AddPattern(Pattern):
    """``x + y → [ReLU]``."""

    tree = (Fork(operator.add, (), ()), Wildcard(nn.ReLU, max_count=1))
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})
    graft = SensaiAdd

    def check(self, match: PatternMatch) -> str | None:
        """Take only what the engine runs."""
        return add_limit(match.tree_match.get_node(0))

    def examples(self) -> Sequence[Example]:
        """A residual block with its ReLU, and a sum alone."""
        return (
            Example(Applied(lambda conv, x: torch.relu(conv(x) + x), nn.Conv2d(4, 4, 1)), image(), "with a ReLU"),
            Example(Applied(lambda conv, x: x + conv(x), nn.Conv2d(4, 4, 1)), image(), "a sum alone"),
        )

    def near_misses(self) -> Sequence[Example]:
        """Sums of other things than two maps of one shape."""
        return (
            Example(Applied(lambda _, x: x + 1.5), image(), "adds a number"),
            Example(Applied(lambda conv, x: conv(x) + x, nn.Conv2d(4, 1, 1)), image(), "repeats one channel"),
            Example(Applied(lambda conv, x: conv(x) - x, nn.Conv2d(4, 4, 1)), image(), "a difference is not a sum"),
        )
