"""Fusions of average pooling."""

from torch import nn

from embedl_deploy.patterns import Example, Pattern, PatternMatch, QDQPoint, resolve_module
from embedl_deploy_onnxruntime.modules import OrtAveragePool
from embedl_deploy_onnxruntime.patterns.examples import maps


class GlobalAveragePoolPattern(Pattern):
    """``AdaptiveAvgPool2d(1)``."""

    tree = (nn.AdaptiveAvgPool2d,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = OrtAveragePool

    def check(self, match: PatternMatch) -> str | None:
        """Take an average over the whole map."""
        size = resolve_module(match.tree_match.get_node(0), nn.AdaptiveAvgPool2d).output_size
        return None if size in (1, (1, 1)) else f"it pools to {size}, and the runtime has integer kernels for 1×1"

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [Example(nn.Sequential(nn.AdaptiveAvgPool2d(1)), maps(), "before a classifier")]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [Example(nn.Sequential(nn.AdaptiveAvgPool2d(2)), maps(), "quarters of the map")]


class AveragePoolPattern(Pattern):
    """``AvgPool2d``."""

    tree = (nn.AvgPool2d,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = OrtAveragePool

    def check(self, match: PatternMatch) -> str | None:
        """Take a divisor that ONNX's AveragePool has."""
        pool = resolve_module(match.tree_match.get_node(0), nn.AvgPool2d)
        if pool.divisor_override is not None:
            return f"it divides by {pool.divisor_override}, which the operator of ONNX cannot say"
        return None

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [Example(nn.Sequential(nn.AvgPool2d(2)), maps(), "halves the map")]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.AvgPool2d(2, divisor_override=3)), maps(), "another divisor"),
            Example(nn.Sequential(nn.MaxPool2d(2)), maps(), "the maximum, which needs no quantizer"),
        ]
