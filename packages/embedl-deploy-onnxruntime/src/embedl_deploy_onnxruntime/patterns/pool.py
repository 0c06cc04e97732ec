"""The fusion of global average pooling.

Average pooling over windows is left in float: the runtime's integer kernel for it is many times slower than the one in
float. Max-pooling needs no quantizer: the runtime moves that of its reader before it.
"""

from torch import nn

from embedl_deploy.patterns import Example, Pattern, PatternMatch, QDQPoint, resolve_module
from embedl_deploy_onnxruntime.modules import OrtGlobalAveragePool
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
