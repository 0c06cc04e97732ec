"""Fusions of matrix products with a weight."""

from torch import nn

from embedl_deploy.patterns import Applied, Example, Pattern, QDQPoint, Wildcard
from embedl_deploy_onnxruntime.modules import OrtLinear, Rectifier
from embedl_deploy_onnxruntime.patterns.examples import sequences


class LinearPattern(Pattern):
    """``Linear → [ReLU or ReLU6]``."""

    tree = (nn.Linear, Wildcard(Rectifier, max_count=1))
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = OrtLinear

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.Linear(8, 6), nn.ReLU()), sequences()),
            Example(nn.Sequential(nn.Linear(8, 6, bias=False), nn.GELU()), sequences(), "GELU is another node"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(Applied(lambda x: x @ x.transpose(-1, -2)), sequences(), "no weight"),
            Example(nn.Sequential(nn.Conv1d(8, 6, 1)), sequences(), "a convolution"),
        ]
