"""Fusions of average pooling, over the whole map and over windows.

Max-pooling needs no quantizer: it takes and gives the numbers of the quantizer before it.
"""

from torch import nn

from embedl_deploy.patterns import Example, Pattern, PatternMatch, QDQPoint, resolve_module
from embedl_deploy_onnxruntime.modules import AveragePool, OrtAveragePool, OrtGlobalAveragePool
from embedl_deploy_onnxruntime.patterns.examples import maps


class GlobalAveragePoolPattern(Pattern):
    """``AdaptiveAvgPool2d(1)``."""

    tree = (nn.AdaptiveAvgPool2d,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = OrtGlobalAveragePool

    def check(self, match: PatternMatch) -> str | None:
        """Take an average over the whole map."""
        size = resolve_module(match.tree_match.get_node(0), nn.AdaptiveAvgPool2d).output_size
        return None if size in (1, (1, 1)) else f"it pools to {size}; the runtime has an integer kernel for 1×1"

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [Example(nn.Sequential(nn.AdaptiveAvgPool2d(1)), maps(), "before a classifier")]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [Example(nn.Sequential(nn.AdaptiveAvgPool2d(2)), maps(), "quarters of the map")]


class AveragePoolPattern(Pattern):
    """``AvgPool1d``, ``AvgPool2d`` or ``AvgPool3d``, as a convolution computes it."""

    tree = (AveragePool,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = OrtAveragePool

    def check(self, match: PatternMatch) -> str | None:
        """Take a pool that divides all windows by the same number."""
        pool = resolve_module(match.tree_match.get_node(0), nn.Module)
        assert isinstance(pool, AveragePool)
        if pool.ceil_mode:
            return "its last window may be smaller (ceil_mode), so windows are divided by different numbers"
        padding = pool.padding if isinstance(pool.padding, tuple) else (pool.padding,)
        if any(padding) and not pool.count_include_pad:
            return "it does not count its padding, so windows are divided by different numbers"
        if getattr(pool, "divisor_override", None) is not None:
            return "it divides by a number of its own (divisor_override)"
        return None

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.Conv2d(4, 4, 3), nn.AvgPool2d(2)), maps(), "as in DenseNet"),
            Example(nn.Sequential(nn.AvgPool2d(3, 1, padding=1)), maps(), "as in Inception"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.AvgPool2d(3, 2, ceil_mode=True)), maps(), "smaller windows at the edge"),
            Example(nn.Sequential(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)), maps(), "padding left out"),
        ]
