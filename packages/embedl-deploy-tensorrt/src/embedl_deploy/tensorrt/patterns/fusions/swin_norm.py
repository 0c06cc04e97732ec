"""LayerNorm → SwinWindowPartition  becomes  one module, in which the windows are cut before they are normalized.

Declined: a norm over more than the channels, which treats tokens by their place in the image.
"""

import torch
from torch import nn

from embedl_deploy.modules import SwinWindowPartition
from embedl_deploy.patterns import Example, Pattern, PatternMatch, Tapped, resolve_module
from embedl_deploy.tensorrt.modules.swin_norm import FusedSwinNormPartition


def _image() -> tuple[torch.Tensor]:
    """(B, Y, X, E), for examples."""
    return (torch.randn(2, 4, 4, 8),)


class SwinNormPartitionPattern(Pattern):
    """``LayerNorm → SwinWindowPartition``."""

    tree = (nn.LayerNorm, SwinWindowPartition)
    qdq_points = frozenset()
    graft = FusedSwinNormPartition

    def check(self, match: PatternMatch) -> str | None:
        """Take a norm over the channels."""
        norm = resolve_module(match.tree_match.get_node(0), nn.LayerNorm)
        axes = len(norm.normalized_shape)
        return f"it normalizes over the last {axes} axes, so over places, too" if axes > 1 else None

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.LayerNorm(8), SwinWindowPartition((2, 2), (0, 0))), _image()),
            Example(nn.Sequential(nn.LayerNorm(8), SwinWindowPartition((2, 2), (1, 1))), _image(), "shifted"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        partition = SwinWindowPartition((2, 2), (0, 0))
        return [
            Example(nn.Sequential(nn.LayerNorm((4, 8)), partition), _image(), "normalizes places, too"),
            Example(Tapped(nn.LayerNorm(8), partition), _image(), "used before it is cut"),
        ]
