"""The fusion of fully connected layers."""

from collections.abc import Sequence

import torch
from torch import nn

from embedl_deploy.patterns import Example, Pattern, PatternMatch, QDQPoint, Wildcard, shape_of
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

    def examples(self) -> Sequence[Example]:
        """A classifier, and a hidden layer."""
        return (
            Example(nn.Linear(6, 4), (torch.randn(2, 6),), "a classifier"),
            Example(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), (torch.randn(2, 6),), "a hidden layer"),
        )

    def near_misses(self) -> Sequence[Example]:
        """Several vectors per sample."""
        return (Example(nn.Linear(6, 4), (torch.randn(2, 5, 6),), "five vectors per sample, as in a transformer"),)
