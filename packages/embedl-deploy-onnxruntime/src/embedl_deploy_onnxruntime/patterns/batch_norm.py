"""The fusion of batch norm that follows no convolution."""

from torch import nn

from embedl_deploy.modules import BatchNorm, Convolution
from embedl_deploy.patterns import Example, Pattern, PatternMatch, QDQPoint, Wildcard, get_module, shape_of
from embedl_deploy_onnxruntime.modules import OrtBatchNorm, Rectifier
from embedl_deploy_onnxruntime.patterns.examples import maps, sequences

_LEAST_DIMENSIONS = 3


class BatchNormPattern(Pattern):
    """``batch norm → [ReLU or ReLU6]``, before the convolution."""

    tree = (BatchNorm, Wildcard(Rectifier, max_count=1))
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = OrtBatchNorm

    def check(self, match: PatternMatch) -> str | None:
        """Take a norm of maps or sequences by running statistics that follows no convolution."""
        node = match.tree_match.get_node(0)
        before = node.all_input_nodes[0]
        if isinstance(get_module(before), Convolution) and len(before.users) == 1:
            return f"it is part of the convolution {before.name}"
        norm = get_module(node)
        assert isinstance(norm, BatchNorm)
        if norm.running_mean is None:
            return "it keeps no running statistics, so it is no convolution"
        shape = shape_of(node)
        if shape is None:
            return "the shape of what it reads is not known: pass example inputs, args="
        if len(shape) < _LEAST_DIMENSIONS:
            return "it is over features, without positions, so it is no convolution"
        return None

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 1)), maps(), "as in DenseNet"),
            Example(nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(4)), maps(), "alone"),
            Example(nn.Sequential(nn.BatchNorm1d(4)), sequences(4), "of sequences"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)), maps(), "part of the convolution"),
            Example(nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False)), maps(), "statistics of the batch"),
            Example(nn.Sequential(nn.GroupNorm(2, 4)), maps(), "another norm"),
        ]
